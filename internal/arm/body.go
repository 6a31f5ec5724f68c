package arm

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/innate-id/innate/internal/problem"
)

// Document is a resource as clients write it.
type Document map[string]json.RawMessage

// serverMembers are what only the server says about a resource.
var serverMembers = []string{"id", "name", "type", "etag", "systemData", "resources"}

// take removes and returns a member, found without case as ARM does.
func (d Document) take(name string) (json.RawMessage, bool) {
	for k, v := range d {
		if strings.EqualFold(k, name) {
			delete(d, k)
			return v, true
		}
	}
	return nil, false
}

// Member returns a member, found without case.
func (d Document) Member(name string) json.RawMessage {
	for k, v := range d {
		if strings.EqualFold(k, name) {
			return v
		}
	}
	return nil
}

func isNull(b json.RawMessage) bool {
	return len(b) == 0 || bytes.Equal(bytes.TrimSpace(b), []byte("null"))
}

// clean checks a client's document and takes out what the server says itself.
func (t *Type) clean(d Document) error {
	seen := map[string]string{}
	for k := range d {
		l := strings.ToLower(k)
		if other, dup := seen[l]; dup {
			return problem.Errorf(problem.Invalid, "The request content has '%s' and '%s', which are one member.", other, k)
		}
		seen[l] = k
	}
	for _, m := range serverMembers {
		d.take(m)
	}
	if err := cleanTags(d.Member("tags")); err != nil {
		return err
	}
	if loc, ok := d.take("location"); ok && !isNull(loc) {
		var s string
		if json.Unmarshal(loc, &s) != nil || len(s) > 90 {
			return problem.Errorf(problem.Invalid, "The member 'location' must be a string of at most 90 characters.")
		}
		d["location"] = loc
	}
	if raw, ok := d.take("properties"); ok && !isNull(raw) {
		var props Document
		if err := json.Unmarshal(raw, &props); err != nil {
			return problem.Errorf(problem.Invalid, "The member 'properties' must be an object.")
		}
		for _, m := range append([]string{"provisioningState"}, t.Computed...) {
			props.take(m)
		}
		d.set("properties", props)
	}
	return nil
}

// set stores v, which must be encodable, as a member.
func (d Document) set(name string, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("encoding member %s: %v", name, err)) // only plain values of ours come here
	}
	d[name] = b
}

func cleanTags(raw json.RawMessage) error {
	if isNull(raw) {
		return nil
	}
	var tags map[string]string
	if err := json.Unmarshal(raw, &tags); err != nil {
		return problem.Errorf(problem.Invalid, "The member 'tags' must be an object whose values are strings.")
	}
	if len(tags) > 50 {
		return problem.Errorf(problem.Invalid, "The member 'tags' has %d entries; at most 50 are allowed.", len(tags))
	}
	for k, v := range tags {
		if k == "" || len(k) > 512 || len(v) > 256 {
			return problem.Errorf(problem.Invalid, "The tag '%s' is out of bounds: names have 1 to 512 characters, values at most 256.", clip(k))
		}
	}
	return nil
}

func clip(s string) string {
	if len(s) > 80 {
		return s[:80] + "..."
	}
	return s
}

// properties decodes the member properties; a document without it has none.
func properties(body map[string]json.RawMessage) map[string]any {
	out := map[string]any{}
	if raw := Document(body).Member("properties"); !isNull(raw) {
		// clean made sure that it is an object.
		_ = json.Unmarshal(raw, &out)
	}
	return out
}

// merge applies patch to base as RFC 7396 has it, but for tags, which ARM
// replaces whole.
func merge(base, patch Document) (Document, error) {
	out := Document{}
	for k, v := range base {
		out[k] = v
	}
	for k, v := range patch {
		old, had := out.take(k)
		switch {
		case isNull(v):
		case had && !strings.EqualFold(k, "tags"):
			m, err := mergeValue(old, v, 0)
			if err != nil {
				return nil, err
			}
			out[k] = m
		default:
			out[k] = v
		}
	}
	return out, nil
}

func mergeValue(base, patch json.RawMessage, depth int) (json.RawMessage, error) {
	if depth > 64 {
		return nil, problem.Errorf(problem.Invalid, "The request content is nested more than 64 deep.")
	}
	var b, p map[string]json.RawMessage
	if json.Unmarshal(patch, &p) != nil || p == nil || json.Unmarshal(base, &b) != nil || b == nil {
		return patch, nil
	}
	for k, v := range p {
		if isNull(v) {
			delete(b, k)
			continue
		}
		m, err := mergeValue(b[k], v, depth+1)
		if err != nil {
			return nil, err
		}
		b[k] = m
	}
	return json.Marshal(b)
}
