package keyring

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"

	"github.com/smallstep/pkcs7"
)

// MetadataName is the name of who signs the documents of an installation: what
// a verifier compares the signer's certificate with.
func MetadataName(domain string) string { return "metadata." + domain }

// SignDocument returns content in a PKCS #7 SignedData (DER) that the tenant's
// [KindMetadataCA] vouches for. The signer's certificate says
// [MetadataName] and, as its organization, the tenant; it is in the answer.
func (r *Ring) SignDocument(ctx context.Context, tenant, domain string, content []byte) ([]byte, error) {
	ca, err := r.Authority(ctx, tenant, KindMetadataCA, domain)
	if err != nil {
		return nil, err
	}
	by, err := r.documentSigner(ca, tenant, domain)
	if err != nil {
		return nil, err
	}
	sd, err := pkcs7.NewSignedData(content)
	if err != nil {
		return nil, fmt.Errorf("beginning a signed document: %w", err)
	}
	sd.SetDigestAlgorithm(pkcs7.OIDDigestAlgorithmSHA256)
	if err := sd.AddSigner(by.Leaf, by.PrivateKey, pkcs7.SignerInfoConfig{}); err != nil {
		return nil, fmt.Errorf("signing a document: %w", err)
	}
	der, err := sd.Finish()
	if err != nil {
		return nil, fmt.Errorf("ending a signed document: %w", err)
	}
	return der, nil
}

// documentSigner returns the key that signs a tenant's documents in this
// process, with its certificate: made when first asked for, and again at half
// of its life.
func (r *Ring) documentSigner(ca *Authority, tenant, domain string) (*tls.Certificate, error) {
	id := tenant + "/" + domain
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.Now()
	if have := r.docs[id]; have != nil && now.Before(have.renew) {
		return have.cert, nil
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("generating a key for documents: %w", err)
	}
	name := MetadataName(domain)
	leaf, err := ca.sign(&x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: shortName(name), Organization: []string{tenant}}, DNSNames: []string{name},
		NotBefore: now.Add(-leafBackdate), NotAfter: now.Add(leafLife),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageEmailProtection},
	}, key.Public())
	if err != nil {
		return nil, err
	}
	made := &tls.Certificate{Certificate: [][]byte{leaf.Raw}, PrivateKey: key, Leaf: leaf}
	if r.docs == nil {
		r.docs = map[string]*serverLeaf{}
	}
	r.docs[id] = &serverLeaf{cert: made, renew: now.Add(leafLife / 2)}
	return made, nil
}
