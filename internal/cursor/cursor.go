// Package cursor makes the tokens by which clients ask for the next page of a
// list ($skiptoken).
//
// What a newcomer would get wrong: a place in a list is the key of the last thing
// that was looked at, and that may be one that the reader was not shown. So a
// token tells nothing, not even how long that key is, and is good for the one who
// was given it, at the API that gave it. It is kept nowhere: what opens it is the
// root key, which all replicas have.
package cursor

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"math"

	"github.com/innate-id/innate/internal/problem"
	"github.com/innate-id/innate/internal/seal"
)

// Sealer seals places. Each page that has a next one costs a wrapped data key.
type Sealer struct{ Box *seal.Box }

// Reader is who goes on reading.
type Reader struct {
	// API is which of our APIs has the list: a place of one is none of another.
	API               string
	Tenant, Principal string
}

func (r Reader) context() seal.Context {
	return seal.Context{Tenant: r.Tenant, Kind: "cursor", ID: r.Principal, Version: r.API}
}

// block is what the length of what is sealed is rounded up to, in bytes: longer
// than most keys, so that most tokens have one length.
const block = 256

// Token is the token of a place.
func (s Sealer) Token(ctx context.Context, r Reader, place string) (string, error) {
	if len(place) > math.MaxUint16 {
		return "", fmt.Errorf("making a token of a page: its place is %d bytes long", len(place))
	}
	b := binary.BigEndian.AppendUint16(nil, uint16(len(place)))
	b = append(b, place...)
	b = append(b, make([]byte, (block-len(b)%block)%block)...)
	sealed, err := s.Box.Seal(ctx, r.context(), b)
	if err != nil {
		return "", fmt.Errorf("making a token of a page: %w", err)
	}
	return base64.RawURLEncoding.EncodeToString(sealed), nil
}

// Place is the place of a token; "", the beginning, of none. [problem.Invalid]
// if it was not given to this reader.
func (s Sealer) Place(ctx context.Context, r Reader, token string) (string, error) {
	if token == "" {
		return "", nil
	}
	refused := func(err error) (string, error) {
		return "", &problem.Error{Kind: problem.Invalid, Detail: "The '$skiptoken' is not one that this API gave out to the client; follow the link to the next page as it is.", Target: "$skiptoken", Err: err}
	}
	sealed, err := base64.RawURLEncoding.Strict().DecodeString(token)
	if err != nil {
		return refused(err)
	}
	b, err := s.Box.Open(ctx, r.context(), sealed)
	if err != nil {
		return refused(err)
	}
	if len(b) < 2 || len(b) < 2+int(binary.BigEndian.Uint16(b)) {
		return refused(fmt.Errorf("what it seals is %d bytes long", len(b)))
	}
	return string(b[2 : 2+binary.BigEndian.Uint16(b)]), nil
}
