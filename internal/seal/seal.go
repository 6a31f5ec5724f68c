// Package seal encrypts everything secret at rest: signing keys, CA keys,
// secret values. Each record has a data key of its own, wrapped by the root
// key ([Custody]); the record's [Context] is authenticated with it, so that a
// sealed value copied to another row, tenant or version does not open.
//
// The encryption is Tink's (AES-256-GCM with random nonces); this package only
// arranges it.
package seal

import (
	"context"
	"encoding/binary"
	"fmt"
	"math"

	"github.com/tink-crypto/tink-go/v2/aead"
	"github.com/tink-crypto/tink-go/v2/aead/subtle"
	"github.com/tink-crypto/tink-go/v2/subtle/random"
)

// Context says which record a sealed value belongs to.
type Context struct {
	Tenant, Kind, ID, Version string
}

// bytes is the context as associated data; lengths keep its fields apart.
func (c Context) bytes() []byte {
	b := []byte("innate seal v1")
	for _, f := range []string{c.Tenant, c.Kind, c.ID, c.Version} {
		b = binary.BigEndian.AppendUint32(b, uint32(len(f)))
		b = append(b, f...)
	}
	return b
}

// Custody holds the root key: it wraps data keys and never shows itself.
type Custody interface {
	Wrap(ctx context.Context, key, associated []byte) ([]byte, error)
	Unwrap(ctx context.Context, wrapped, associated []byte) ([]byte, error)
}

// Box seals and opens.
type Box struct{ Root Custody }

const dataKeyLen = 32

// Seal encrypts plaintext for the record c. The result is
//
//	1 (version) | len(wrapped) as 2 bytes | wrapped data key | nonce, ciphertext, tag
func (b *Box) Seal(ctx context.Context, c Context, plaintext []byte) ([]byte, error) {
	key := random.GetRandomBytes(dataKeyLen)
	defer clear(key)
	wrapped, err := b.Root.Wrap(ctx, key, c.bytes())
	if err != nil {
		return nil, fmt.Errorf("wrapping a data key: %w", err)
	}
	if len(wrapped) > math.MaxUint16 {
		return nil, fmt.Errorf("wrapping a data key: the wrapped key is %d bytes long; at most %d have room", len(wrapped), math.MaxUint16)
	}
	a, err := subtle.NewAESGCM(key)
	if err != nil {
		return nil, fmt.Errorf("making a data key: %w", err)
	}
	ct, err := a.Encrypt(plaintext, c.bytes())
	if err != nil {
		return nil, fmt.Errorf("sealing %s %s: %w", c.Kind, c.ID, err)
	}
	out := append([]byte{1}, byte(len(wrapped)>>8), byte(len(wrapped)))
	return append(append(out, wrapped...), ct...), nil
}

// Open is the reverse of Seal. It fails when the value was made for another
// record, under another root key, or was changed.
func (b *Box) Open(ctx context.Context, c Context, sealed []byte) ([]byte, error) {
	if len(sealed) < 3 || sealed[0] != 1 {
		return nil, fmt.Errorf("opening %s %s: not a sealed value of version 1", c.Kind, c.ID)
	}
	n := int(binary.BigEndian.Uint16(sealed[1:]))
	if len(sealed) < 3+n {
		return nil, fmt.Errorf("opening %s %s: the sealed value is cut short", c.Kind, c.ID)
	}
	key, err := b.Root.Unwrap(ctx, sealed[3:3+n], c.bytes())
	if err != nil {
		return nil, fmt.Errorf("opening %s %s: the root key does not fit, or the record was moved or changed: %w", c.Kind, c.ID, err)
	}
	defer clear(key)
	a, err := subtle.NewAESGCM(key)
	if err != nil {
		return nil, fmt.Errorf("opening %s %s: %w", c.Kind, c.ID, err)
	}
	pt, err := a.Decrypt(sealed[3+n:], c.bytes())
	if err != nil {
		return nil, fmt.Errorf("opening %s %s: the sealed value was moved or changed: %w", c.Kind, c.ID, err)
	}
	return pt, nil
}

var template = aead.AES256GCMKeyTemplate
