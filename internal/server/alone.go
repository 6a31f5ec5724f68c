package server

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// alone takes the SQLite database at path for this process: what a program
// keeps in memory (who has asked for what, the record's order) is right only
// while nobody else writes. The lock is on a file beside the database: SQLite
// has locks of its own on that one, and they would end with our descriptor.
func alone(path string) (*os.File, error) {
	if real, err := filepath.EvalSymlinks(path); err == nil { // a new one is not there yet
		path = real
	}
	f, err := os.OpenFile(path+".lock", os.O_CREATE|os.O_RDWR|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("locking the database: %w", err)
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if err == nil {
		return f, nil
	}
	if errors.Is(err, unix.EWOULDBLOCK) {
		err = fmt.Errorf("the database %s is in use: with SQLite one program alone can use it, innated or its bootstrap; stop the other one first", path)
	} else {
		err = fmt.Errorf("locking the database: %w", err)
	}
	return nil, errors.Join(err, f.Close())
}
