package dev

import (
	"errors"
	"fmt"
	"os"
	"strings"
)

// hosts: the block that --write-hosts keeps in the hosts file.
const (
	hostsBegin = "# innate dev: begin"
	hostsEnd   = "# innate dev: end"
)

// WithHosts returns a hosts file's text with the block for names, in place of
// one that is there; without names, without the block. Marks that are no pair
// are an error: what is between them could be anyone's.
func WithHosts(text string, names []string) (string, error) {
	var out []string
	inside := false
	for line := range strings.Lines(text) {
		mark := strings.TrimSpace(line)
		if mark == hostsBegin && inside || mark == hostsEnd && !inside {
			return "", unpaired()
		}
		if mark == hostsBegin {
			inside = true
		}
		if !inside {
			out = append(out, line)
		}
		if mark == hostsEnd {
			inside = false
		}
	}
	if inside {
		return "", unpaired()
	}
	text = strings.Join(out, "")
	if len(names) == 0 {
		return text, nil
	}
	if text != "" && !strings.HasSuffix(text, "\n") {
		text += "\n"
	}
	return text + hostsBegin + "\n127.0.0.1 " + strings.Join(names, " ") + "\n" + hostsEnd + "\n", nil
}

func unpaired() error {
	return fmt.Errorf("the lines %q and %q are not a pair; remove what innate dev left there by hand", hostsBegin, hostsEnd)
}

// writeHosts updates the hosts file in place: it may be a mount of its own,
// which cannot be renamed over.
func writeHosts(path string, names []string) error {
	old, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("reading the hosts file: %w", err)
	}
	text, err := WithHosts(string(old), names)
	if err != nil {
		return fmt.Errorf("in the hosts file %s, %w", path, err)
	}
	if text == string(old) {
		return nil
	}
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("writing the hosts file (--write-hosts needs root): %w", err)
	}
	if err := overwrite(f, []byte(text), old); err != nil {
		return errors.Join(fmt.Errorf("writing the hosts file: %w", err), f.Close())
	}
	return f.Close()
}

// overwrite puts text in the place of old, longest first and then the length,
// so that the file is at no moment empty or cut. Where that does not work (a
// full disk), old is put back.
func overwrite(f *os.File, text, old []byte) error {
	_, err := f.WriteAt(text, 0)
	if err == nil {
		err = f.Truncate(int64(len(text)))
	}
	if err != nil {
		_, back := f.WriteAt(old, 0)
		return errors.Join(err, back, f.Truncate(int64(len(old))))
	}
	return f.Sync()
}
