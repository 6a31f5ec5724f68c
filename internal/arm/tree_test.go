package arm

import (
	"slices"
	"strings"
	"testing"
)

func TestTree(t *testing.T) {
	t.Parallel()
	tree := Tree{"a": "root", "b": "a", "c": "b", "d": "c", "e": "d", "x": "root", "y": "x", "/subscriptions/s": "b"}
	for _, tt := range []struct{ key, want string }{
		{"a", "root"}, {"c", "b a root"}, {"/subscriptions/s", "b a root"}, {"/subscriptions/other", "root"}, {"root", ""},
	} {
		if got := strings.Join(tree.above(tt.key, "root"), " "); got != tt.want {
			t.Errorf("above %s: %s, want %s", tt.key, got, tt.want)
		}
	}
	if got := tree.children("b"); !slices.Equal(got, []string{"/subscriptions/s", "c"}) {
		t.Errorf("children of b: %v", got)
	}
	for _, tt := range []struct {
		key, parent string
		ok          bool
	}{
		{"new", "root", true},
		{"new", "e", true},  // the sixth level
		{"x", "e", false},   // with y it would be the seventh
		{"y", "e", true},    // alone it is the sixth
		{"a", "a", false},   // below itself
		{"a", "e", false},   // a circle
		{"b", "root", true}, // up
		{"/subscriptions/s", "e", true},
	} {
		if err := tree.mayMove(tt.key, tt.parent, "root"); (err == nil) != tt.ok {
			t.Errorf("%s below %s: %v, want allowed %v", tt.key, tt.parent, err, tt.ok)
		}
	}
	// A circle, which no write makes, ends nobody.
	round := Tree{"a": "b", "b": "a"}
	if got := round.above("a", "root"); len(got) > 4 {
		t.Errorf("above a in a circle: %v", got)
	}
}
