package hostkey

import (
	"crypto/tls"
	"fmt"
	"os"
)

// LoadOwn reads a certificate that the machine has already, with its key: what
// a host shows to enrol without a one-time token, and for nothing else. The
// files are PEM; the certificate's may have those that vouch for it after it.
//
// The key is somebody else's to keep (a group of its own may read it, as where
// distributions keep keys), but one that everybody can read proves nothing.
func LoadOwn(certFile, keyFile string) (*tls.Certificate, error) {
	info, err := os.Stat(keyFile)
	if err != nil {
		return nil, fmt.Errorf("looking at the key of the machine's certificate: %w", err)
	}
	if perm := info.Mode().Perm(); perm&0o027 != 0 {
		return nil, fmt.Errorf("key %s can be read by everybody or written by its group (mode %04o): run chmod 600 %s, and have the certificate made anew if you fear that the key was read", keyFile, perm, keyFile)
	}
	cert, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		return nil, fmt.Errorf("reading the machine's certificate and its key: %w", err)
	}
	return &cert, nil
}
