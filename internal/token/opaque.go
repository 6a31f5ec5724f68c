package token

import (
	"crypto"
	"crypto/rand"
	"fmt"

	"github.com/go-jose/go-jose/v4"
)

// opaqueSigner lets the JOSE library sign through a crypto.Signer, so that a
// key that cannot be exported (a TPM's, a module's) will do.
type opaqueSigner struct{ s Signer }

func opaque(s Signer) jose.OpaqueSigner { return opaqueSigner{s} }

func (o opaqueSigner) Public() *jose.JSONWebKey {
	return &jose.JSONWebKey{Key: o.s.Key.Public(), KeyID: o.s.KeyID, Algorithm: string(jose.RS256), Use: "sig"}
}

func (o opaqueSigner) Algs() []jose.SignatureAlgorithm {
	return []jose.SignatureAlgorithm{jose.RS256}
}

func (o opaqueSigner) SignPayload(payload []byte, alg jose.SignatureAlgorithm) ([]byte, error) {
	if alg != jose.RS256 {
		return nil, fmt.Errorf("signing with %s: only RS256 is supported", alg)
	}
	h := crypto.SHA256.New()
	h.Write(payload)
	return o.s.Key.Sign(rand.Reader, h.Sum(nil), crypto.SHA256)
}
