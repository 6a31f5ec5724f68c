package arm

import (
	"fmt"
	"slices"
	"testing"
)

// TestSift: whatever is hidden, all that is shown is on some page, once, in
// order.
func TestSift(t *testing.T) {
	t.Parallel()
	all := func(shown bool) func(int) bool { return func(int) bool { return shown } }
	for name, tt := range map[string]struct {
		rows  int
		shows func(i int) bool
		pages int
	}{
		"none":                 {0, all(true), 1},
		"a full page":          {PageSize, all(true), 1},
		"one more":             {PageSize + 1, all(true), 2},
		"all hidden":           {PageSize * 3, all(false), 1},
		"hidden, past a look":  {scanned * 3, all(false), 3},
		"every other":          {PageSize * 4, func(i int) bool { return i%2 == 0 }, 3}, // what follows the 200th is not known to be hidden
		"the last alone":       {scanned*2 + 50, func(i int) bool { return i == scanned*2+49 }, 3},
		"the first and last":   {scanned*2 + 50, func(i int) bool { return i == 0 || i == scanned*2+49 }, 4},
		"hidden after a page":  {PageSize + scanned + 200, func(i int) bool { return i < PageSize }, 3},
		"hidden before a page": {scanned + PageSize*2, func(i int) bool { return i >= scanned+PageSize }, 2},
	} {
		key := func(i int) string { return fmt.Sprintf("%06d", i) }
		read := func(p Page) (out []int, err error) {
			for i := range tt.rows {
				if key(i) > p.After && len(out) < p.Limit {
					out = append(out, i)
				}
			}
			return out, nil
		}
		var got, want []int
		for i := range tt.rows {
			if tt.shows(i) {
				want = append(want, i)
			}
		}
		pages, next := 0, ""
		for more := true; more; more = next != "" {
			page, token, err := sift(next, read, key, func(i int) (bool, error) { return tt.shows(i), nil })
			if err != nil || len(page) > PageSize || token == next && token != "" {
				t.Fatalf("%s: a page of %d, the next %q after %q: %v", name, len(page), token, next, err)
			}
			got, next = append(got, page...), token
			pages++
		}
		if !slices.Equal(got, want) || pages > tt.pages {
			t.Errorf("%s: %d rows on %d pages, want %d on %d at most", name, len(got), pages, len(want), tt.pages)
		}
	}
}
