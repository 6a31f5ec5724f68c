package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/innate-id/innate/internal/mask"
)

// output passes a command's output on, masked.
type output struct {
	r, w *os.File
	once sync.Once
	done chan error
}

// lastWords is how long output is waited for that a process, left behind by
// the command, may still write.
const lastWords = time.Second

// passOn takes what is written to w of the output to a file.
func passOn(set *mask.Set, to *os.File) (*output, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("making a pipe for the command's output: %w", err)
	}
	o := &output{r: r, w: w, done: make(chan error, 1)}
	go func() { o.done <- o.copy(set.Writer(to)) }()
	return o, nil
}

// sameFile reports whether two files are one: a log, a terminal.
func sameFile(a, b *os.File) bool {
	fa, aerr := a.Stat()
	fb, berr := b.Stat()
	return aerr == nil && berr == nil && os.SameFile(fa, fb)
}

// started closes our end of what the command writes to: from then on the
// output ends with its last writer.
func (o *output) started() { o.once.Do(func() { _ = o.w.Close() }) }

// end waits for the last of the output, when the command has ended.
func (o *output) end() error {
	_ = o.r.SetReadDeadline(time.Now().Add(lastWords)) // fails where it has ended, and is closed
	return <-o.done
}

// copy masks until the output ends. If it cannot be written, its source is
// closed: the command is told as it would be without us, by SIGPIPE.
func (o *output) copy(to *mask.Writer) error {
	defer o.r.Close()
	buf := make([]byte, 32<<10)
	for {
		n, err := o.r.Read(buf)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			err = o.rest(to)
		}
		if n > 0 && err == nil {
			_, err = to.Write(buf[:n])
		}
		if errors.Is(err, io.EOF) {
			err = to.Close()
			return passedOn(err)
		}
		if err != nil {
			return passedOn(err)
		}
	}
}

// passedOn says what went wrong; that nobody reads any more is no fault.
func passedOn(err error) error {
	if err == nil || errors.Is(err, unix.EPIPE) {
		return nil
	}
	return fmt.Errorf("passing the command's output on: %w", err)
}

// pipeMax is the most that a pipe holds (Linux: fs.pipe-max-size by default).
const pipeMax = 1 << 20

// rest passes on what is in the pipe already, and ends with io.EOF.
func (o *output) rest(to *mask.Writer) error {
	if err := o.r.SetReadDeadline(time.Time{}); err != nil {
		return err
	}
	raw, err := o.r.SyscallConn()
	if err != nil {
		return err
	}
	buf := make([]byte, 32<<10)
	for total := 0; total < pipeMax; {
		var n int
		var readErr error
		if err := raw.Read(func(fd uintptr) bool { n, readErr = unix.Read(int(fd), buf); return true }); err != nil {
			return err
		}
		if readErr != nil && readErr != unix.EAGAIN {
			return readErr
		}
		if n <= 0 {
			break
		}
		if _, err := to.Write(buf[:n]); err != nil {
			return err
		}
		total += n
	}
	return io.EOF
}
