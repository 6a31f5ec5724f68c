// Package resource holds resource IDs: the names of everything in the
// management tree, and so the scopes at which roles are assigned.
//
//	/                                                                    the tenant's root
//	/subscriptions/{id}
//	/subscriptions/{id}/resourceGroups/{name}
//	/subscriptions/{id}/resourceGroups/{name}/providers/{namespace}/{type}/{name}[/{type}/{name}...]
//	{any of these}/providers/{namespace}/{type}/{name}                   an extension (a role assignment)
//
// IDs compare without case and print with their author's case: use
// [ID.Equal], [ID.Contains] and [ID.Key], never the text. An ID is ASCII;
// letters that only fold to ASCII (the Kelvin sign to k) would let two texts
// be one resource in one place and two in another.
package resource

import (
	"strings"

	"github.com/innate-id/innate/internal/problem"
)

// MaxLen is the longest ID accepted, in bytes.
const MaxLen = 2048

// ID names a node of the management tree. The zero ID is no resource; the
// root is [Root]. IDs do not compare with ==: see [ID.Equal].
type ID struct {
	_    [0]func() // forbids ==, which would compare case
	text string    // canonical but for case: no trailing slash, resourceGroups as written
}

// Root is the tenant's root scope, "/".
var Root = ID{text: "/"}

// Parse reads an ID. It accepts one trailing slash and any case of the fixed
// words, and returns a [problem.Invalid] that names the offending part.
func Parse(s string) (ID, error) {
	if len(s) > MaxLen {
		return ID{}, problem.Errorf(problem.Invalid, "resource ID is %d bytes long; at most %d are allowed", len(s), MaxLen)
	}
	if s == "/" {
		return Root, nil
	}
	text := strings.TrimSuffix(s, "/")
	if !strings.HasPrefix(text, "/") {
		return ID{}, problem.Errorf(problem.Invalid, "resource ID %q does not begin with a slash", problem.Clip(s))
	}
	if err := check(strings.Split(text[1:], "/")); err != nil {
		return ID{}, err
	}
	return ID{text: text}, nil
}

// MustParse is Parse for constants; it panics on an error.
func MustParse(s string) ID {
	id, err := Parse(s)
	if err != nil {
		panic(err)
	}
	return id
}

// check walks the grammar: [subscriptions {s} [resourceGroups {g}]] (providers {ns} ({type} {name})+)*.
func check(segs []string) error {
	for i, s := range segs {
		if err := checkSegment(s, i); err != nil {
			return err
		}
	}
	i := 0
	if fold(segs[0]) == "subscriptions" {
		if len(segs) == 1 {
			return problem.Errorf(problem.Invalid, "resource ID ends after %q; a subscription id was expected", segs[0])
		}
		i = 2
		if len(segs) > 2 && fold(segs[2]) == "resourcegroups" {
			if len(segs) == 3 {
				return problem.Errorf(problem.Invalid, "resource ID ends after %q; a resource group name was expected", segs[2])
			}
			i = 4
		}
	}
	for i < len(segs) {
		if fold(segs[i]) != "providers" {
			return problem.Errorf(problem.Invalid, "resource ID has %q where \"providers\" was expected", problem.Clip(segs[i]))
		}
		n := 0
		for n = i + 1; n < len(segs) && (n == i+1 || fold(segs[n]) != "providers" || (n-i)%2 != 0); n++ {
		}
		switch words := n - i - 1; {
		case words == 0:
			return problem.Errorf(problem.Invalid, "resource ID ends after \"providers\"; a namespace was expected")
		case words == 1:
			return problem.Errorf(problem.Invalid, "resource ID ends after the namespace %q; a type and a name were expected", problem.Clip(segs[n-1]))
		case words%2 == 0:
			return problem.Errorf(problem.Invalid, "resource ID has the type %q without a name", problem.Clip(segs[n-1]))
		}
		i = n
	}
	return nil
}

func checkSegment(s string, i int) error {
	if s == "" {
		return problem.Errorf(problem.Invalid, "resource ID has an empty segment at position %d", i+1)
	}
	if s == "." || s == ".." {
		return problem.Errorf(problem.Invalid, "resource ID has the segment %q, which is not a name", s)
	}
	if len(s) > 260 {
		return problem.Errorf(problem.Invalid, "resource ID segment %q is over 260 bytes long", problem.Clip(s))
	}
	for _, c := range []byte(s) {
		if c <= ' ' && c != ' ' || c >= 0x7f || strings.IndexByte(`%\?#<>&"|*:`+"`", c) >= 0 {
			return problem.Errorf(problem.Invalid, "resource ID segment %q has the character %q; letters, digits and ( ) - _ . are allowed", problem.Clip(s), c)
		}
	}
	if s != strings.TrimSpace(s) || strings.HasSuffix(s, ".") {
		return problem.Errorf(problem.Invalid, "resource ID segment %q begins or ends with a space, or ends with a dot", problem.Clip(s))
	}
	return nil
}

// fold is ASCII lower case; segments are ASCII, so it is all of case folding.
func fold(s string) string { return strings.ToLower(s) }

// String returns the ID as its author wrote it.
func (id ID) String() string { return id.text }

// MarshalText writes the ID as text.
func (id ID) MarshalText() ([]byte, error) { return []byte(id.text), nil }

// UnmarshalText reads an ID; empty text is the zero ID.
func (id *ID) UnmarshalText(b []byte) error {
	if len(b) == 0 {
		*id = ID{}
		return nil
	}
	p, err := Parse(string(b))
	if err != nil {
		return err
	}
	*id = p
	return nil
}

// IsZero reports whether id is no ID at all.
func (id ID) IsZero() bool { return id.text == "" }

// IsRoot reports whether id is the tenant's root.
func (id ID) IsRoot() bool { return id.text == "/" }

// Key is the ID in lower case: what it is stored and compared by.
func (id ID) Key() string { return fold(id.text) }

// Equal reports whether both name the same node.
func (id ID) Equal(o ID) bool { return strings.EqualFold(id.text, o.text) }

// Contains reports whether o is id or lies below it. The root contains
// everything; the zero ID contains nothing.
func (id ID) Contains(o ID) bool {
	if id.IsZero() || o.IsZero() {
		return false
	}
	if id.IsRoot() {
		return true
	}
	n := len(id.text)
	return len(o.text) >= n && strings.EqualFold(o.text[:n], id.text) && (len(o.text) == n || o.text[n] == '/')
}

func (id ID) segments() []string {
	if id.IsZero() || id.IsRoot() {
		return nil
	}
	return strings.Split(id.text[1:], "/")
}

// Subscription returns the subscription's id, or "".
func (id ID) Subscription() string {
	segs := id.segments()
	if len(segs) < 2 || fold(segs[0]) != "subscriptions" {
		return ""
	}
	return segs[1]
}

// Group returns the resource group's name, or "".
func (id ID) Group() string {
	segs := id.segments()
	if len(segs) < 4 || fold(segs[0]) != "subscriptions" || fold(segs[2]) != "resourcegroups" {
		return ""
	}
	return segs[3]
}

// GroupID returns the ID of the resource group that id lies in, or the zero ID.
func (id ID) GroupID() ID {
	if id.Group() == "" {
		return ID{}
	}
	return ID{text: "/" + strings.Join(id.segments()[:4], "/")}
}

// SubscriptionID returns the ID of the subscription that id lies in, or the zero ID.
func (id ID) SubscriptionID() ID {
	if id.Subscription() == "" {
		return ID{}
	}
	return ID{text: "/" + strings.Join(id.segments()[:2], "/")}
}

// provider returns the index of the last "providers" segment, or -1.
func provider(segs []string) int {
	i := 0
	if len(segs) > 0 && fold(segs[0]) == "subscriptions" {
		i = 2
		if len(segs) > 2 && fold(segs[2]) == "resourcegroups" {
			i = 4
		}
	}
	last := -1
	for i < len(segs) {
		last = i
		n := i + 1
		for n < len(segs) && (n == i+1 || fold(segs[n]) != "providers" || (n-i)%2 != 0) {
			n++
		}
		i = n
	}
	return last
}

// Type returns the resource type, "Microsoft.Compute/virtualMachines", with
// the author's case; for groups and subscriptions
// "Microsoft.Resources/resourceGroups" and "Microsoft.Resources/subscriptions".
func (id ID) Type() string {
	segs := id.segments()
	p := provider(segs)
	if p < 0 {
		switch len(segs) {
		case 2:
			return "Microsoft.Resources/subscriptions"
		case 4:
			return "Microsoft.Resources/resourceGroups"
		}
		return ""
	}
	t := segs[p+1]
	for i := p + 2; i < len(segs); i += 2 {
		t += "/" + segs[i]
	}
	return t
}

// Name returns the last segment.
func (id ID) Name() string {
	segs := id.segments()
	if len(segs) == 0 {
		return ""
	}
	return segs[len(segs)-1]
}

// Parent returns the node directly above: the parent resource, the group, the
// subscription, the node that an extension extends, and at last the root. The
// root's parent is the zero ID.
func (id ID) Parent() ID {
	if id.IsZero() || id.IsRoot() {
		return ID{}
	}
	segs := id.segments()
	n := len(segs) - 2
	if p := provider(segs); p >= 0 && n == p+2 {
		n = p // {scope}/providers/{ns}/{type}/{name}: up to the scope
	}
	if n <= 0 {
		return Root
	}
	return ID{text: "/" + strings.Join(segs[:n], "/")}
}

// Scope returns what an extension resource (a role assignment) is about: the
// ID up to its last "/providers/".
func (id ID) Scope() ID {
	segs := id.segments()
	p := provider(segs)
	switch {
	case p < 0:
		return id
	case p == 0:
		return Root
	}
	return ID{text: "/" + strings.Join(segs[:p], "/")}
}

// Child returns the ID of a child, id/{typ}/{name}.
func (id ID) Child(typ, name string) (ID, error) { return id.below("/"+typ, name) }

// Extension returns the ID id/providers/{typ}/{name}, where typ is
// "Namespace/type".
func (id ID) Extension(typ, name string) (ID, error) { return id.below("/providers/"+typ, name) }

// below makes the ID of something under id. A slash in the name would make
// another, deeper node of what should be one name; and below the zero ID
// would be the root, where a role counts everywhere.
func (id ID) below(path, name string) (ID, error) {
	if id.IsZero() {
		return ID{}, problem.Errorf(problem.Invalid, "there is no resource ID to put %q below", problem.Clip(name))
	}
	if name == "" || strings.Contains(name, "/") {
		return ID{}, problem.Errorf(problem.Invalid, "%q is not a resource name: it is empty or has a slash", problem.Clip(name))
	}
	return Parse(strings.TrimSuffix(id.text, "/") + path + "/" + name)
}

// Ancestors returns id and every node above it, ending with the root: the
// scopes whose role assignments count at id.
func (id ID) Ancestors() []ID {
	var out []ID
	for n := id; !n.IsZero(); n = n.Parent() {
		out = append(out, n)
	}
	return out
}

// Moved returns what id is called when the node from has become the node to:
// itself for from, what lies below it with the same path from there on. ok is
// false, and the ID as it was, for everything else. An ID that would be too
// long is an error.
func (id ID) Moved(from, to ID) (moved ID, ok bool, err error) {
	if from.IsRoot() || !from.Contains(id) || to.IsZero() {
		return id, false, nil
	}
	moved, err = Parse(to.text + id.text[len(from.text):])
	return moved, err == nil, err
}
