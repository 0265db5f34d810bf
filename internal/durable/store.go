package durable

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Store keeps a JSON file for each object in a directory: DIR/NAME.json. Calls for different names may run at
// the same time, and share their syncs; calls for one name must not.
type Store[T any] struct {
	dir      string
	volatile bool
	commits  commits
}

// ValidName reports whether name may be a record's: it has at most 200 letters, digits, '.', '_' and '-', and
// begins with a letter or digit.
//
// It is not a regular expression: to compile one takes a tenth of the time that a CNI plugin runs.
func ValidName(name string) bool {
	for i := range len(name) {
		c := name[i]
		letter := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
		if !letter && (i == 0 || c != '.' && c != '_' && c != '-') {
			return false
		}
	}
	return name != "" && len(name) <= 200
}

// OpenStore opens the store in dir, which it makes with mode 0700 if it is not there. The records of a
// volatile store are not synced: it is for state that is of no use after a reboot, in /run.
func OpenStore[T any](dir string, volatile bool) (*Store[T], error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	return &Store[T]{dir: dir, volatile: volatile, commits: commits{dir: dir}}, nil
}

func (s *Store[T]) path(name string) (string, error) {
	if !ValidName(name) {
		return "", fmt.Errorf("record name %q: only letters, digits, '.', '_' and '-'", name)
	}
	return filepath.Join(s.dir, name+".json"), nil
}

// Put writes a record.
func (s *Store[T]) Put(name string, record T) error {
	if s.volatile {
		return s.Note(name, record)
	}
	path, data, err := s.encode(name, record)
	if err != nil {
		return err
	}
	return s.commits.put(path, data)
}

// Note is Put without waiting for the disk: the record survives the end of its writer, but after a power loss
// it may be missing or unreadable.
func (s *Store[T]) Note(name string, record T) error {
	path, data, err := s.encode(name, record)
	if err != nil {
		return err
	}
	return WriteVolatile(path, data, 0o600)
}

func (s *Store[T]) encode(name string, record T) (path string, data []byte, err error) {
	if path, err = s.path(name); err != nil {
		return "", nil, err
	}
	if data, err = json.Marshal(record); err != nil {
		return "", nil, fmt.Errorf("encode record %s: %w", name, err)
	}
	return path, data, nil
}

// Get returns a record; fs.ErrNotExist when there is none.
func (s *Store[T]) Get(name string) (record T, err error) {
	path, err := s.path(name)
	if err != nil {
		return record, err
	}
	record, _, err = read[T](unix.AT_FDCWD, path, nil)
	return record, err
}

// Delete removes a record. One that is not there is a success.
func (s *Store[T]) Delete(name string) error {
	path, err := s.path(name)
	if err != nil {
		return err
	}
	if s.volatile {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	}
	return s.commits.remove(path)
}

// Quarantined returns the files of records of that name that were set aside and are still there.
func (s *Store[T]) Quarantined(name string) ([]string, error) {
	if !ValidName(name) {
		return nil, nil
	}
	return filepath.Glob(filepath.Join(s.dir, "quarantine", name+".json.*"))
}

// Discard deletes the records of that name that were set aside.
func (s *Store[T]) Discard(name string) error {
	files, err := s.Quarantined(name)
	if err != nil || len(files) == 0 {
		return err
	}
	for _, file := range files {
		if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return SyncDir(filepath.Join(s.dir, "quarantine"))
}
