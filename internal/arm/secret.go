package arm

import (
	"encoding/json"
	"fmt"
	"strings"
)

// dropSecrets takes the type's write-only members out of properties.
func (t *Type) dropSecrets(props map[string]json.RawMessage) error {
	for _, path := range t.WriteOnly {
		if _, err := dropMember(props, strings.Split(path, ".")); err != nil {
			return err
		}
	}
	return nil
}

// dropMember takes the member at the path out of an object, and reports whether
// it was there. What is not of the expected kind has no such member.
func dropMember(in map[string]json.RawMessage, path []string) (bool, error) {
	name, each := strings.CutSuffix(path[0], "[]")
	changed := false
	for k, v := range in {
		if name != "*" && fold(k) != fold(name) {
			continue
		}
		if len(path) == 1 {
			delete(in, k)
			changed = true
			continue
		}
		out, dropped, err := dropBelow(v, each, path[1:])
		if err != nil {
			return false, err
		}
		if dropped {
			in[k], changed = out, true
		}
	}
	return changed, nil
}

// dropBelow is dropMember in a value that is encoded: an object, or with each an
// array of objects.
func dropBelow(raw json.RawMessage, each bool, path []string) (json.RawMessage, bool, error) {
	if !each {
		m := object(raw)
		dropped, err := dropMember(m, path)
		if err != nil || !dropped {
			return raw, false, err
		}
		return encoded(m)
	}
	var list []json.RawMessage
	if json.Unmarshal(raw, &list) != nil {
		return raw, false, nil
	}
	changed := false
	for i, v := range list {
		out, dropped, err := dropBelow(v, false, path)
		if err != nil {
			return raw, false, err
		}
		if dropped {
			list[i], changed = out, true
		}
	}
	if !changed {
		return raw, false, nil
	}
	return encoded(list)
}

func encoded(v any) (json.RawMessage, bool, error) {
	out, err := json.Marshal(v)
	if err != nil {
		return nil, false, fmt.Errorf("encoding a document without its secrets: %w", err)
	}
	return out, true, nil
}
