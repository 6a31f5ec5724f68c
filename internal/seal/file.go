package seal

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/google/renameio/v2"
	"github.com/tink-crypto/tink-go/v2/aead"
	"github.com/tink-crypto/tink-go/v2/insecurecleartextkeyset"
	"github.com/tink-crypto/tink-go/v2/keyset"
	"github.com/tink-crypto/tink-go/v2/tink"
)

// File is custody in a file that only its owner can read: a Tink keyset in
// JSON. systemd credentials (LoadCredential=) are such files too.
type File struct{ root tink.AEAD }

// OpenFile reads the root key from path.
func OpenFile(path string) (*File, error) {
	st, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("reading the root key: %w", err)
	}
	if st.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("the root key %s can be read by others (mode %04o); run: chmod 600 %s", path, st.Mode().Perm(), path)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading the root key: %w", err)
	}
	h, err := insecurecleartextkeyset.Read(keyset.NewJSONReader(bytes.NewReader(b)))
	if err != nil {
		// The cause could repeat parts of the file.
		return nil, fmt.Errorf("the root key %s is not a Tink keyset in JSON", path)
	}
	a, err := aead.New(h)
	if err != nil {
		return nil, fmt.Errorf("the root key %s is not an AEAD keyset: %w", path, err)
	}
	return &File{root: a}, nil
}

// CreateFile makes a new root key at path, mode 0600. It refuses to replace
// one: without its root key nothing sealed can ever be opened.
func CreateFile(path string) (*File, error) {
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("creating a root key: %s is there already", path)
	}
	h, err := keyset.NewHandle(template())
	if err != nil {
		return nil, fmt.Errorf("creating a root key: %w", err)
	}
	var buf bytes.Buffer
	if err := insecurecleartextkeyset.Write(h, keyset.NewJSONWriter(&buf)); err != nil {
		return nil, fmt.Errorf("creating a root key: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("creating a root key: %w", err)
	}
	if err := renameio.WriteFile(path, buf.Bytes(), 0o600, renameio.WithStaticPermissions(0o600)); err != nil {
		return nil, fmt.Errorf("creating a root key: %w", err)
	}
	return OpenFile(path)
}

// Wrap implements [Custody].
func (f *File) Wrap(_ context.Context, key, associated []byte) ([]byte, error) {
	return f.root.Encrypt(key, associated)
}

// Unwrap implements [Custody].
func (f *File) Unwrap(_ context.Context, wrapped, associated []byte) ([]byte, error) {
	return f.root.Decrypt(wrapped, associated)
}
