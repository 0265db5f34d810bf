package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// entry is a write that was acknowledged.
type entry struct {
	seq      int
	revision int64
	at       int64 // in milliseconds since 1970
}

// journal is what one worker has noted: a line for each entry.
type journal struct {
	*os.File

	last int // seq of the last entry
}

func journalPath(dir string, worker int) string {
	return filepath.Join(dir, fmt.Sprintf("worker-%d", worker))
}

// openJournal opens the journal of a worker to go on with it. A last line that is cut off is removed.
func openJournal(dir string, worker int) (*journal, error) {
	path := journalPath(dir, worker)
	entries, err := readJournal(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}

	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}

	j := &journal{File: file}
	var end int64
	for _, e := range entries {
		j.last = e.seq
		end += int64(len(e.line()))
	}

	if err := file.Truncate(end); err != nil {
		file.Close()
		return nil, err
	}
	if _, err := file.Seek(end, 0); err != nil {
		file.Close()
		return nil, err
	}

	return j, nil
}

func (e entry) line() string { return fmt.Sprintf("%d %d %d\n", e.seq, e.revision, e.at) }

// note writes an entry in one piece.
func (j *journal) note(e entry) error {
	_, err := j.WriteString(e.line())
	return err
}

// readJournal reads the complete lines.
func readJournal(path string) ([]entry, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}

	data = data[:bytes.LastIndexByte(data, '\n')+1]
	var entries []entry
	lines := bufio.NewScanner(strings.NewReader(string(data)))
	for lines.Scan() {
		var e entry
		if _, err := fmt.Sscanf(lines.Text(), "%d %d %d", &e.seq, &e.revision, &e.at); err != nil {
			return nil, fmt.Errorf("%s: line %q: %w", path, lines.Text(), err)
		}
		entries = append(entries, e)
	}

	return entries, lines.Err()
}
