package main

import "testing"

func TestMemoryIsGivenBackOnceAtRest(t *testing.T) {
	var r rest
	for i, tt := range []struct {
		collected uint64
		want      bool
	}{
		{0, false}, // nothing was collected yet
		{3, false}, // something is going on
		{5, false},
		{5, true},
		{6, false}, // by giving it back
		{6, false},
		{9, false},
		{9, true},
	} {
		got := r.came(tt.collected)
		if got != tt.want {
			t.Errorf("look %d, %d collections: %v, want %v", i, tt.collected, got, tt.want)
		}
		if got {
			r.given = tt.collected + 1
		}
	}
}
