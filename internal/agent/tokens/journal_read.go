package tokens

import (
	"bufio"
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
		if err := j.sweep(file.Name()); err != nil {
			return nil, err
		}
		digits, ok := strings.CutPrefix(file.Name(), "journal-")
		if !ok {
			continue
		}
		name := filepath.Join(j.dir, file.Name())
		first, err := strconv.ParseInt(strings.TrimSuffix(digits, ".ndjson"), 10, 64)
		if err != nil {
			return nil, fmt.Errorf("journal file %s has no batch number in its name: remove it", name)
		}
		records, err := j.read(first)
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

// sweep removes counts whose records are gone: the agent was killed while it
// removed a segment.
func (j *Journal) sweep(name string) error {
	digits, ok := strings.CutPrefix(name, "counts-")
	if !ok {
		return nil
	}
	if _, err := os.Stat(filepath.Join(j.dir, "journal-"+digits+".ndjson")); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := os.Remove(filepath.Join(j.dir, name)); err != nil {
		return fmt.Errorf("removing counts without records: %w", err)
	}
	return nil
}

// read returns a segment's records with their repeats counted.
func (j *Journal) read(first int64) ([]line, error) {
	records, err := readLines(j.path(first))
	if err != nil {
		return nil, err
	}
	counted, err := readCounts(j.countsPath(first), len(records))
	if err != nil {
		return nil, err
	}
	for i, c := range counted {
		if c.n == 0 {
			continue
		}
		if s := records[i].Served; s != nil {
			s.Count, s.At = s.Count+c.n, c.last
		} else {
			r := records[i].Refusal
			r.Count, r.At = r.Count+c.n, c.last
		}
	}
	return records, nil
}

// readLines returns a file's records. A last line without its end was being
// written when the agent was killed: its answer never left, and it is left out.
// Any other line that does not read is an error: a record must not vanish unsaid.
func readLines(path string) ([]line, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("opening a journal file: %w", err)
	}
	defer f.Close()
	var out []line
	r := bufio.NewReader(f)
	for {
		text, err := r.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return nil, fmt.Errorf("reading a journal file: %w", err)
		}
		var l line
		err = json.Unmarshal(text, &l)
		if err == nil && (l.N != len(out) || (l.Served == nil) == (l.Refusal == nil)) {
			err = errors.New("it is not the next record")
		}
		if err != nil {
			return nil, fmt.Errorf("journal %s, line %d (set the file aside to go on without its records): %w", path, len(out)+1, err)
		}
		out = append(out, l)
	}
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
