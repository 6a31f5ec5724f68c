package resource_test

import (
	"strings"
	"testing"

	"github.com/innate-id/innate/internal/resource"
)

func TestMoved(t *testing.T) {
	t.Parallel()
	const from, to = "/subscriptions/S/resourceGroups/G1/providers/N.A/ts/x", "/subscriptions/T/resourceGroups/G2/providers/N.A/ts/x"
	for _, tt := range []struct {
		id, want string
		ok       bool
	}{
		{from, to, true},
		{strings.ToUpper(from), to, true},
		{from + "/subs/Y", to + "/subs/Y", true},
		{from + "/providers/N.B/us/z", to + "/providers/N.B/us/z", true},
		{from + "y", from + "y", false}, // a prefix of text is not a parent
		{"/subscriptions/S/resourceGroups/G1", "/subscriptions/S/resourceGroups/G1", false},
		{"/", "/", false},
	} {
		got, ok, err := resource.MustParse(tt.id).Moved(resource.MustParse(from), resource.MustParse(to))
		if err != nil || ok != tt.ok || got.String() != tt.want {
			t.Errorf("%s moved = %s, %v, %v, want %s, %v", tt.id, got, ok, err, tt.want, tt.ok)
		}
	}
	long := resource.MustParse(from + strings.Repeat("/t/"+strings.Repeat("n", 200), 9))
	if _, ok, err := long.Moved(resource.MustParse(from), resource.MustParse(to+strings.Repeat("/t/"+strings.Repeat("m", 200), 2))); ok || err == nil {
		t.Errorf("an ID that gets too long was moved")
	}
	if got, ok, _ := resource.MustParse(from).Moved(resource.Root, resource.MustParse(to)); ok {
		t.Errorf("the root was moved: %s", got)
	}
}
