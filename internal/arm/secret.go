package arm

import (
	"encoding/json"
	"fmt"
	"strings"
)

// dropSecrets takes the type's write-only members out of properties. It is done
// before a document is stored, and again when one is read: an older version
// stored them.
func (t *Type) dropSecrets(props map[string]json.RawMessage) {
	for _, path := range t.WriteOnly {
		dropMember(props, strings.Split(path, "."))
	}
}

// dropMember takes the member at the path out of an object, and reports whether
// it was there. What is not of the expected kind has no such member.
func dropMember(in map[string]json.RawMessage, path []string) (changed bool) {
	name, each := strings.CutSuffix(path[0], "[]")
	for k, v := range in {
		if name != "*" && fold(k) != fold(name) {
			continue
		}
		if len(path) == 1 {
			delete(in, k)
			changed = true
		} else if out, dropped := dropBelow(v, each, path[1:]); dropped {
			in[k], changed = out, true
		}
	}
	return changed
}

// dropBelow is dropMember in a value that is encoded: an object, or with each an
// array of objects.
func dropBelow(raw json.RawMessage, each bool, path []string) (json.RawMessage, bool) {
	if !each {
		m := object(raw)
		if !dropMember(m, path) {
			return raw, false
		}
		return encoded(m), true
	}
	var list []json.RawMessage
	if json.Unmarshal(raw, &list) != nil {
		return raw, false
	}
	changed := false
	for i, v := range list {
		if out, dropped := dropBelow(v, false, path); dropped {
			list[i], changed = out, true
		}
	}
	if !changed {
		return raw, false
	}
	return encoded(list), true
}

func encoded(v any) json.RawMessage {
	out, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("encoding a document without its secrets: %v", err)) // it was JSON before
	}
	return out
}
