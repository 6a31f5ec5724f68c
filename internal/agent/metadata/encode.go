package metadata

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"net/http"
	"strconv"
	"sync"
)

// A token's answer is the one that programs ask for again and again, and half
// of what it cost was encoding/json and the memory for it. It is put together
// here, to the same bytes.

// answer is a body that writes itself.
type answer interface {
	// appendJSON appends the body to b.
	appendJSON(b []byte) []byte
}

func (t *imdsToken) appendJSON(b []byte) []byte {
	b = text(append(b, '{'), `"access_token":`, t.AccessToken)
	b = text(b, `,"client_id":`, t.ClientID)
	b = number(b, `,"expires_in":`, t.ExpiresIn)
	b = number(b, `,"expires_on":`, t.ExpiresOn)
	b = number(b, `,"ext_expires_in":`, t.ExtExpiresIn)
	b = number(b, `,"not_before":`, t.NotBefore)
	b = text(b, `,"resource":`, t.Resource)
	return append(text(b, `,"token_type":`, t.TokenType), '}')
}

func (t *arcToken) appendJSON(b []byte) []byte {
	b = t.imdsToken.appendJSON(b)
	b = b[:len(b)-1]
	for _, m := range [][2]string{{`,"object_id":`, t.ObjectID}, {`,"msi_res_id":`, t.MsiResourceID}, {`,"mi_res_id":`, t.MiResourceID}} {
		if m[1] != "" {
			b = text(b, m[0], m[1])
		}
	}
	return append(b, '}')
}

func (t *appServiceToken) appendJSON(b []byte) []byte {
	b = text(append(b, '{'), `"access_token":`, t.AccessToken)
	b = text(b, `,"client_id":`, t.ClientID)
	b = number(b, `,"expires_in":`, t.ExpiresIn)
	b = number(b, `,"expires_on":`, t.ExpiresOn)
	b = text(b, `,"resource":`, t.Resource)
	return append(text(b, `,"token_type":`, t.TokenType), '}')
}

// text appends a member that is a string; name is as JSON has it, with what is
// around it.
func text(b []byte, name, value string) []byte { return quoted(append(b, name...), value) }

// number appends a member that is a number, in quotes.
func number(b []byte, name string, value int64) []byte {
	b = append(append(b, name...), '"')
	return append(strconv.AppendInt(b, value, 10), '"')
}

// quoted appends s as a JSON string.
func quoted(b []byte, s string) []byte {
	begin := len(b)
	b = append(b, '"')
	b = append(b, s...)
	if !plainText(b[begin+1:]) {
		whole, _ := marshal(s) // a string always has some
		return append(b[:begin], whole...)
	}
	return append(b, '"')
}

// plainText reports whether a JSON string has all of s as it is: eight bytes at
// a time while there are so many, for a token is long.
func plainText(s []byte) bool {
	const ones, high = 0x0101010101010101, 0x8080808080808080
	for ; len(s) >= 8; s = s[8:] {
		w := binary.LittleEndian.Uint64(s)
		// A byte's high bit in x-ones says that the byte of x is 0, where no
		// byte of x has that bit already; in w-0x20..., that it is below ' '.
		quote, slash, del := w^('"'*ones), w^('\\'*ones), w^(0x7f*ones)
		if (w|(w-' '*ones)|(quote-ones)|(slash-ones)|(del-ones))&high != 0 {
			return false
		}
	}
	for _, c := range s {
		if !asItIs[c] {
			return false
		}
	}
	return true
}

// asItIs are the bytes that a JSON string has as they are.
var asItIs = func() (t [256]bool) {
	for c := byte(' '); c < 0x7f; c++ {
		t[c] = c != '"' && c != '\\'
	}
	return t
}()

// marshal is v as JSON with <, > and & as they are: audiences are echoed as they
// were written.
func marshal(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	err := enc.Encode(v)
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), err
}

// buffers are used again for answer after answer; nothing keeps what is in them.
var buffers = sync.Pool{New: func() any { return new([]byte) }}

// writeAnswer sends a token's answer.
func writeAnswer(w http.ResponseWriter, status int, body answer) {
	b := buffers.Get().(*[]byte)
	*b = body.appendJSON((*b)[:0])
	send(w, status, *b)
	clear(*b) // there was a token in it
	buffers.Put(b)
}
