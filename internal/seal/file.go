package seal

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

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
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("reading the root key: %w", err)
	}
	defer f.Close() // nothing was written
	st, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("reading the root key: %w", err)
	}
	if st.Mode().Perm()&forbidden(path) != 0 {
		return nil, fmt.Errorf("the root key %s can be read by others (mode %04o); run: chmod 600 %s", path, st.Mode().Perm(), path)
	}
	b, err := io.ReadAll(io.LimitReader(f, maxFile))
	if err != nil {
		return nil, fmt.Errorf("reading the root key: %w", err)
	}
	defer clear(b)
	// Here and below the cause could repeat parts of the file.
	h, err := insecurecleartextkeyset.Read(keyset.NewJSONReader(bytes.NewReader(b)))
	if err != nil {
		return nil, fmt.Errorf("the root key %s is not a Tink keyset in JSON", path)
	}
	a, err := aead.New(h)
	if err != nil {
		return nil, fmt.Errorf("the root key %s is not a Tink keyset for AEAD", path)
	}
	return &File{root: a}, nil
}

// maxFile is far more than a keyset needs, in bytes.
const maxFile = 1 << 20

// forbidden are the permissions that the file at path must not give. systemd
// lets a service's user read a credential by an access control list, whose
// mask shows as the group's permission to read.
func forbidden(path string) fs.FileMode {
	if dir := os.Getenv("CREDENTIALS_DIRECTORY"); dir != "" && filepath.Dir(path) == filepath.Clean(dir) {
		return 0o037
	}
	return 0o077
}

// CreateFile makes a new root key at path, mode 0600. It refuses to replace
// one: without its root key nothing sealed can ever be opened.
func CreateFile(path string) (*File, error) {
	h, err := keyset.NewHandle(template())
	if err != nil {
		return nil, fmt.Errorf("creating a root key: %w", err)
	}
	var buf bytes.Buffer
	if err := insecurecleartextkeyset.Write(h, keyset.NewJSONWriter(&buf)); err != nil {
		return nil, fmt.Errorf("creating a root key: %w", err)
	}
	defer clear(buf.Bytes())
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("creating a root key: %w", err)
	}
	err = writeNew(path, buf.Bytes())
	if errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("creating a root key: %s is there already", path)
	}
	if err != nil {
		return nil, fmt.Errorf("creating a root key: %w", err)
	}
	return OpenFile(path)
}

// writeNew writes a file that must not be there, and sees it onto the disk:
// what is sealed next must not outlive its key. It writes beside path and links,
// because the link is the one step that both refuses to replace and is never
// seen half done.
func writeNew(path string, b []byte) (err error) {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, ".root-key-*") // mode 0600
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.Remove(f.Name())) }()
	_, err = f.Write(b)
	if err = errors.Join(err, f.Chmod(0o600), f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Link(f.Name(), path); err != nil {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// Wrap implements [Custody].
func (f *File) Wrap(_ context.Context, key, associated []byte) ([]byte, error) {
	return f.root.Encrypt(key, associated)
}

// Unwrap implements [Custody].
func (f *File) Unwrap(_ context.Context, wrapped, associated []byte) ([]byte, error) {
	return f.root.Decrypt(wrapped, associated)
}
