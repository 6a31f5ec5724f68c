package metadata

import (
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/innate-id/innate/internal/problem"
)

func TestArcKeyEndsByItself(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "tokens")
	synctest.Test(t, func(t *testing.T) {
		k, err := OpenKeys(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer k.Close()
		path, err := k.challenge("door:arc", os.Getuid())
		if err != nil {
			t.Fatal(err)
		}
		secret, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(keyLife + time.Millisecond)
		synctest.Wait()
		if _, err := os.Stat(path); !os.IsNotExist(err) {
			t.Errorf("the file after %v: %v, want it gone", keyLife, err)
		}
		if err := k.redeem(string(secret), "door:arc"); !problem.Is(err, problem.Unauthenticated) {
			t.Errorf("redeem after %v = %v, want it refused", keyLife, err)
		}
		if len(k.each) != 0 {
			t.Errorf("callers counted still: %v", k.each)
		}
	})
}
