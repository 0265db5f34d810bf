package durable

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

var errAside = errors.New("it was set aside")

// Peek reads the records of a store that somebody else may be writing, and changes nothing. Files that are
// not readable records are returned as well, and so are those that were set aside, with where they are. A
// directory that is not there has none.
func Peek[T any](dir string) (records map[string]T, unreadable []Unreadable, err error) {
	records = map[string]T{}
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return records, nil, nil
	}
	if err != nil {
		return nil, nil, err
	}

	for _, e := range entries {
		name, isRecord := strings.CutSuffix(e.Name(), ".json")
		if e.IsDir() || strings.HasPrefix(e.Name(), tempPrefix) {
			continue
		}

		var record T
		err := errors.New("not a record")
		if isRecord {
			err = peekOne(filepath.Join(dir, e.Name()), &record)
		}
		switch {
		case err == nil:
			records[name] = record
		case !errors.Is(err, fs.ErrNotExist):
			unreadable = append(unreadable, Unreadable{Name: name, Err: err})
		}
	}

	aside, err := filepath.Glob(filepath.Join(dir, "quarantine", "*"))
	for _, file := range aside {
		name, _, _ := strings.Cut(filepath.Base(file), ".json.")
		unreadable = append(unreadable, Unreadable{Name: name, Moved: file, Err: errAside})
	}
	return records, unreadable, err
}

func peekOne[T any](path string, record *T) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	return json.Unmarshal(data, record)
}
