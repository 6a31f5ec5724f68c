package seal_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/tink-crypto/tink-go/v2/insecurecleartextkeyset"
	"github.com/tink-crypto/tink-go/v2/keyset"
	"github.com/tink-crypto/tink-go/v2/mac"

	"github.com/innate-id/innate/internal/seal"
)

func TestCreatedFileIsItsOwnersAlone(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "new", "root.key")
	made, err := seal.CreateFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for p, want := range map[string]os.FileMode{path: 0o600, filepath.Dir(path): 0o700} {
		st, err := os.Stat(p)
		if err != nil {
			t.Fatal(err)
		}
		if got := st.Mode().Perm(); got != want {
			t.Errorf("mode of %s = %04o, want %04o", filepath.Base(p), got, want)
		}
	}
	s := sealed(t, &seal.Box{Root: made}, record, plain)
	again, err := seal.OpenFile(path)
	if err != nil {
		t.Fatal(err)
	}
	got, err := (&seal.Box{Root: again}).Open(t.Context(), record, s)
	if err != nil || string(got) != plain {
		t.Errorf("after a restart Open = %q, %v", got, err)
	}
	left, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(left) != 1 {
		t.Errorf("CreateFile leaves %v, %v; want the key alone", left, err)
	}
}

func TestCreateFileRefusesToReplace(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		make func(t *testing.T, path string) error
	}{
		{"a file", func(_ *testing.T, path string) error { return os.WriteFile(path, []byte("precious"), 0o600) }},
		{"an empty file", func(_ *testing.T, path string) error { return os.WriteFile(path, nil, 0o600) }},
		{"a directory", func(_ *testing.T, path string) error { return os.Mkdir(path, 0o700) }},
		// Following it would write the key where its planter wants it.
		{"a dangling link", func(t *testing.T, path string) error {
			return os.Symlink(filepath.Join(t.TempDir(), "elsewhere"), path)
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "root.key")
			if err := tt.make(t, path); err != nil {
				t.Fatal(err)
			}
			before, _ := os.ReadFile(path)
			if _, err := seal.CreateFile(path); err == nil || !strings.Contains(err.Error(), "is there already") {
				t.Errorf("CreateFile over %s: %v, want a refusal", tt.name, err)
			}
			if after, _ := os.ReadFile(path); !bytes.Equal(before, after) {
				t.Errorf("CreateFile over %s changed it", tt.name)
			}
		})
	}
}

// TestOneOfManyCreatesTheFile: had two succeeded, what was sealed under the
// key that lost could never be opened.
func TestOneOfManyCreatesTheFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "root.key")
	var wg sync.WaitGroup
	made := make(chan *seal.File, 16)
	start := make(chan struct{})
	for range cap(made) {
		wg.Go(func() {
			<-start
			if f, err := seal.CreateFile(path); err == nil {
				made <- f
			}
		})
	}
	close(start)
	wg.Wait()
	close(made)
	if n := len(made); n != 1 {
		t.Fatalf("%d of %d concurrent CreateFile succeed, want 1", n, cap(made))
	}
	s := sealed(t, &seal.Box{Root: <-made}, record, plain)
	f, err := seal.OpenFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := (&seal.Box{Root: f}).Open(t.Context(), record, s); err != nil {
		t.Errorf("the file does not hold the key that was made: %v", err)
	}
}

func TestOpenFileRefusesWhatOthersCanRead(t *testing.T) {
	t.Parallel()
	for _, mode := range []os.FileMode{0o640, 0o604, 0o660, 0o644, 0o666, 0o620, 0o601} {
		path := filepath.Join(t.TempDir(), "root.key")
		if _, err := seal.CreateFile(path); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		if _, err := seal.OpenFile(path); err == nil || !strings.Contains(err.Error(), "chmod 600 "+path) {
			t.Errorf("OpenFile of mode %04o: %v, want a refusal with the remedy", mode, err)
		}
	}
}

// TestSystemdCredentialOpens: systemd lets the service's user read a credential
// by an access control list, whose mask shows as group permission (0440).
func TestSystemdCredentialOpens(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "root-key")
	if _, err := seal.CreateFile(path); err != nil {
		t.Fatal(err)
	}
	open := func(mode os.FileMode) error {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		_, err := seal.OpenFile(path)
		return err
	}
	if err := open(0o440); err == nil {
		t.Error("a file of mode 0440 opens outside of the credentials directory")
	}
	t.Setenv("CREDENTIALS_DIRECTORY", dir)
	if err := open(0o440); err != nil {
		t.Errorf("a credential of mode 0440: %v", err)
	}
	for _, mode := range []os.FileMode{0o460, 0o444} {
		if err := open(mode); err == nil {
			t.Errorf("a credential of mode %04o opens", mode)
		}
	}
}

func TestOpenFileDoesNotRepeatTheFile(t *testing.T) {
	t.Parallel()
	h, err := keyset.NewHandle(mac.HMACSHA256Tag256KeyTemplate())
	if err != nil {
		t.Fatal(err)
	}
	var other bytes.Buffer
	if err := insecurecleartextkeyset.Write(h, keyset.NewJSONWriter(&other)); err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{
		"text":                        "s3cr3t-passphrase",
		"other JSON":                  `{"s3cr3t-passphrase":"s3cr3t-passphrase"}`,
		"cut JSON":                    `{"primaryKeyId":1,"key":[{"keyData":{"value":"s3cr3t-passphrase"`,
		"a bad key value":             `{"primaryKeyId":1,"key":[{"keyData":{"typeUrl":"s3cr3t-passphrase","value":"czNjcjN0","keyMaterialType":"SYMMETRIC"},"status":"ENABLED","keyId":1,"outputPrefixType":"TINK"}]}`,
		"empty":                       "",
		"binary":                      "\x00\x01\xff s3cr3t-passphrase",
		"a keyset for something else": other.String(),
	} {
		path := filepath.Join(t.TempDir(), "root.key")
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := seal.OpenFile(path)
		if err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("OpenFile of %s: %v, want an error that names the file", name, err)
			continue
		}
		if strings.Contains(err.Error(), "s3cr3t") {
			t.Errorf("OpenFile of %s repeats it: %v", name, err)
		}
	}
	if _, err := seal.OpenFile(filepath.Join(t.TempDir(), "none")); err == nil || !strings.Contains(err.Error(), "reading the root key") {
		t.Errorf("OpenFile of nothing: %v", err)
	}
}
