package arm

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"strings"
	"unicode"

	"github.com/innate-id/innate/internal/problem"
	"github.com/innate-id/innate/internal/web"
)

// Document is a resource as clients write it. The names of members compare
// without case, as ARM has it.
type Document map[string]json.RawMessage

// maxDepth bounds how deep documents are nested: encoding/json ends at 10000,
// and an answer puts the document deeper than the request did.
const maxDepth = 64

// UnmarshalJSON refuses what two readers could read in two ways: an object with
// the same member twice, also in another case, and a member whose name is ASCII
// to those alone who fold as Unicode does. The right to a write is decided on
// what it says.
func (d *Document) UnmarshalJSON(b []byte) error {
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.UseNumber()
	if err := walk(dec, 1); err != nil {
		return err
	}
	var m map[string]json.RawMessage
	if err := json.Unmarshal(b, &m); err != nil {
		return err
	}
	*d = m
	return nil
}

// walk reads one value, of which json.Unmarshal found the syntax to be right.
func walk(dec *json.Decoder, depth int) error {
	if depth > maxDepth {
		return problem.Errorf(problem.Invalid, "The request content is nested more than %d deep.", maxDepth)
	}
	open, err := dec.Token()
	if err != nil || open != json.Delim('{') && open != json.Delim('[') {
		return err
	}
	seen := map[string]string{}
	for dec.More() {
		if open == json.Delim('{') {
			tok, err := dec.Token()
			if err != nil {
				return err
			}
			name, _ := tok.(string) // between { and } it is a member's name
			if !ascii(name) && ascii(fold(name)) {
				return problem.Errorf(problem.Invalid, "The request content has the member '%s', whose letters are ASCII only where case does not count; write it in ASCII.", problem.Clip(name))
			}
			if other, dup := seen[fold(name)]; dup {
				return problem.Errorf(problem.Invalid, "The request content has '%s' and '%s', which are one member.", problem.Clip(other), problem.Clip(name))
			}
			seen[fold(name)] = name
		}
		if err := walk(dec, depth+1); err != nil {
			return err
		}
	}
	_, err = dec.Token()
	return err
}

func ascii(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r > unicode.MaxASCII })
}

// fold makes of all names that compare as one the same text. It must not tell
// apart what encoding/json takes for one field, which folds as Unicode does:
// the long s is an s.
func fold(s string) string {
	return strings.Map(func(r rune) rune {
		least := r
		for n := unicode.SimpleFold(r); n != r; n = unicode.SimpleFold(n) {
			least = min(least, n)
		}
		return least
	}, s)
}

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
	for _, m := range serverMembers {
		d.take(m)
	}
	if tags, ok := d.take("tags"); ok {
		if err := cleanTags(tags); err != nil {
			return err
		}
		d["tags"] = tags
	}
	if loc, ok := d.take("location"); ok && !isNull(loc) {
		var s string
		if json.Unmarshal(loc, &s) != nil || len(s) > 90 {
			return problem.Errorf(problem.Invalid, "The member 'location' must be a string of at most 90 characters.")
		}
		d["location"] = loc
	}
	if raw, ok := d.take("properties"); ok {
		var props map[string]json.RawMessage
		if err := json.Unmarshal(raw, &props); err != nil {
			return problem.Errorf(problem.Invalid, "The member 'properties' must be an object.")
		}
		for _, m := range append([]string{"provisioningState"}, t.Computed...) {
			Document(props).take(m)
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
	var tags map[string]*string
	if err := json.Unmarshal(raw, &tags); err != nil {
		return problem.Errorf(problem.Invalid, "The member 'tags' must be an object whose values are strings.")
	}
	if len(tags) > 50 {
		return problem.Errorf(problem.Invalid, "The member 'tags' has %d entries; at most 50 are allowed.", len(tags))
	}
	for k, v := range tags {
		if v == nil {
			return problem.Errorf(problem.Invalid, "The tag '%s' is null; a string was expected. To remove a tag, send the tags without it.", problem.Clip(k))
		}
		if k == "" || len(k) > 512 || len(*v) > 256 {
			return problem.Errorf(problem.Invalid, "The tag '%s' is out of bounds: names have 1 to 512 characters, values at most 256.", problem.Clip(k))
		}
	}
	return nil
}

// Tags are the tags of a resource by name.
func Tags(r Resource) (map[string]string, error) {
	raw := Document(r.Body).Member("tags")
	if isNull(raw) {
		return nil, nil
	}
	var out map[string]string
	if err := json.Unmarshal(raw, &out); err != nil {
		return nil, fmt.Errorf("decoding the tags of %s: %w", r.ID, err)
	}
	return out, nil
}

// properties returns the members of the member properties, each as the client
// wrote it: numbers do not pass through a float. A document without it has none.
func properties(body map[string]json.RawMessage) map[string]any {
	out := map[string]any{}
	for k, v := range object(Document(body).Member("properties")) {
		out[k] = v
	}
	return out
}

// object returns the members of a JSON object; nil if raw is none.
func object(raw json.RawMessage) map[string]json.RawMessage {
	var m map[string]json.RawMessage
	if isNull(raw) || json.Unmarshal(raw, &m) != nil {
		return nil
	}
	return m
}

// merge applies patch to base as RFC 7396 has it, but for tags, which ARM
// replaces whole, and for names, which compare without case.
func merge(base, patch Document) (Document, error) {
	patch = maps.Clone(patch)
	tags, ok := patch.take("tags")
	out, err := mergeObject(base, patch)
	if err != nil {
		return nil, err
	}
	if ok {
		Document(out).take("tags")
		if !isNull(tags) {
			out["tags"] = tags
		}
	}
	return out, nil
}

func mergeObject(base, patch map[string]json.RawMessage) (map[string]json.RawMessage, error) {
	out := make(map[string]json.RawMessage, len(base)+len(patch))
	spelt := make(map[string]string, len(base)) // an index: a search for each member would be quadratic
	for k, v := range base {
		out[k], spelt[fold(k)] = v, k
	}
	for k, v := range patch {
		var old json.RawMessage
		if was, had := spelt[fold(k)]; had {
			old = out[was]
			delete(out, was)
		}
		if isNull(v) {
			continue
		}
		merged, err := mergeValue(old, v)
		if err != nil {
			return nil, err
		}
		out[k] = merged
	}
	return out, nil
}

func mergeValue(base, patch json.RawMessage) (json.RawMessage, error) {
	p := object(patch)
	if p == nil {
		return patch, nil
	}
	m, err := mergeObject(object(base), p)
	if err != nil {
		return nil, err
	}
	out, err := json.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("encoding a merged document: %w", err)
	}
	return out, nil
}

// compact takes out null members, which say nothing in a document that is
// whole, and bounds it: each PATCH can add to it.
func compact(d Document) error {
	size := 0
	for k, v := range d {
		if isNull(v) {
			delete(d, k)
		}
		size += len(k) + len(v)
	}
	if size > web.MaxBody {
		return problem.Errorf(problem.TooLarge, "The resource would be over %d bytes long.", web.MaxBody)
	}
	return nil
}
