package main

import (
	"testing"

	"github.com/innate-id/innate/internal/agent/doctor"
	"github.com/innate-id/innate/internal/dev"
)

func TestHostsFileIsLookedAt(t *testing.T) {
	t.Parallel()
	const mine = "127.0.0.1 localhost\n"
	block, err := dev.WithHosts(mine, []string{"login.innate.localhost"})
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		text    string
		stopped bool
		want    doctor.Level
	}{
		{mine, true, doctor.OK},
		{mine, false, doctor.OK},
		{block, false, doctor.OK},
		{block, true, doctor.Warn},
		{block + "# innate dev: begin\n", false, doctor.Fail},
	} {
		got := hostsFinding(tt.text, tt.stopped)
		if got.Level != tt.want || (got.Remedy == "") != (tt.want == doctor.OK) {
			t.Errorf("hosts file %q, stopped %v: %+v, want %s", tt.text, tt.stopped, got, tt.want)
		}
	}
}
