package tokens

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/innate-id/innate/internal/fleetapi"
)

// left lists what earlier runs left in the directory, oldest first.
func (j *Journal) left() ([]*segment, error) {
	files, err := os.ReadDir(j.dir)
	if err != nil {
		return nil, fmt.Errorf("listing the journal: %w", err)
	}
	var out []*segment
	for _, file := range files {
		digits, ok := strings.CutPrefix(file.Name(), "journal-")
		if !ok {
			continue
		}
		name := filepath.Join(j.dir, file.Name())
		first, err := strconv.ParseInt(strings.TrimSuffix(digits, ".ndjson"), 10, 64)
		if err != nil {
			return nil, fmt.Errorf("journal file %s has no batch number in its name: remove it", name)
		}
		records, err := read(name)
		if err != nil {
			return nil, err
		}
		info, err := os.Stat(name)
		if err != nil {
			return nil, fmt.Errorf("looking at a journal file: %w", err)
		}
		out = append(out, &segment{first: first, size: info.Size(), records: len(records)})
	}
	slices.SortFunc(out, func(a, b *segment) int { return cmp.Compare(a.first, b.first) })
	return out, nil
}

// read returns a file's records with their repeats counted. A last line
// without its end was being written when the agent was killed: its answer never
// left, and it is left out. Any other line that does not read is an error: a
// record must not vanish unsaid.
func read(path string) ([]line, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("opening a journal file: %w", err)
	}
	defer f.Close()
	var out []line
	r := bufio.NewReader(f)
	for number := 1; ; number++ {
		text, err := r.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return nil, fmt.Errorf("reading a journal file: %w", err)
		}
		if out, err = count(out, bytes.TrimSpace(text)); err != nil {
			return nil, fmt.Errorf("journal %s, line %d (set the file aside to go on without its records): %w", path, number, err)
		}
	}
}

// count adds one line of the file to the records.
func count(out []line, text []byte) ([]line, error) {
	var l line
	if err := json.Unmarshal(text, &l); err != nil {
		return nil, fmt.Errorf("decoding: %w", err)
	}
	if l.Served != nil || l.Refusal != nil {
		if l.N != len(out) {
			return nil, fmt.Errorf("record %d where %d was expected", l.N, len(out))
		}
		return append(out, l), nil
	}
	if l.N < 0 || l.N >= len(out) || l.Count < 1 {
		return nil, fmt.Errorf("count of the unknown record %d", l.N)
	}
	at := time.UnixMilli(l.TimeMS).UTC()
	if s := out[l.N].Served; s != nil {
		s.Count, s.At = s.Count+l.Count, at
	} else {
		r := out[l.N].Refusal
		r.Count, r.At = r.Count+l.Count, at
	}
	return out, nil
}

// batches puts records into numbered requests, the same way each time.
func batches(first int64, records []line) []fleetapi.EventsRequest {
	var out []fleetapi.EventsRequest
	for chunk := range slices.Chunk(records, maxRecords) {
		req := fleetapi.EventsRequest{Batch: first + int64(len(out))}
		for _, l := range chunk {
			if l.Served != nil {
				req.Served = append(req.Served, *l.Served)
			} else {
				req.Refusals = append(req.Refusals, *l.Refusal)
			}
		}
		out = append(out, req)
	}
	return out
}
