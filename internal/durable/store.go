package durable

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Store keeps one JSON file per object in a directory: DIR/NAME.json. Different names never touch the same
// file, so no lock is needed between them; callers serialise calls for one name. Calls that run at the same
// time share their syncs.
type Store[T any] struct {
	dir      string
	volatile bool
	commits  commits
}

// Torn is a record that could not be read. It was set aside, never deleted.
type Torn struct {
	Name  string
	Moved string // where the file is now
	Err   error
}

// ValidName reports whether name can be a file's and nothing else: letters, digits, '.', '_' and '-', the
// first one a letter or digit, at most 200.
func ValidName(name string) bool { // no regexp: compiling one takes a CNI plugin a tenth of its life
	for i := range len(name) {
		c := name[i]
		letter := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
		if !letter && (i == 0 || c != '.' && c != '_' && c != '-') {
			return false
		}
	}
	return name != "" && len(name) <= 200
}

// OpenStore makes dir (0700) if need be. With volatile set, records are atomic but not fsynced: for
// boot-scoped state in /run.
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

// Put writes the record whole.
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

// Note is Put without waiting for the disk: the record outlives kill -9 of its writer, but perhaps not a
// power loss, after which it may be missing or torn.
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

// Get reads a record; fs.ErrNotExist when there is none.
func (s *Store[T]) Get(name string) (record T, err error) {
	path, err := s.path(name)
	if err != nil {
		return record, err
	}

	data, err := os.ReadFile(path)
	if err != nil {
		return record, err
	}
	if err := json.Unmarshal(data, &record); err != nil {
		return record, fmt.Errorf("record %s: %w", path, err)
	}

	return record, nil
}

// Delete removes a record; deleting what is not there is success.
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

// List reads all records. Torn and foreign files are renamed into DIR/quarantine and returned; temporary
// files of killed writers are removed. Call it at start, before others write.
func (s *Store[T]) List() (records map[string]T, torn []Torn, err error) {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, nil, err
	}

	records = make(map[string]T, len(entries))
	for _, e := range entries {
		name, isRecord := strings.CutSuffix(e.Name(), ".json")
		switch {
		case e.IsDir():
		case strings.HasPrefix(e.Name(), tempPrefix):
			os.Remove(filepath.Join(s.dir, e.Name()))
		case !isRecord:
			torn = append(torn, s.quarantine(e.Name(), errors.New("not a record")))
		default:
			r, err := s.Get(name)
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}

			if err != nil {
				torn = append(torn, s.quarantine(e.Name(), err))
				continue
			}

			records[name] = r
		}
	}

	return records, torn, nil
}

// Quarantined lists the files of records of that name that were set aside and are still there.
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

func (s *Store[T]) quarantine(file string, cause error) Torn {
	t := Torn{Name: strings.TrimSuffix(file, ".json"), Err: cause}
	dir := filepath.Join(s.dir, "quarantine")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Err = errors.Join(cause, err)
		return t
	}
	t.Moved = filepath.Join(dir, fmt.Sprintf("%s.%d", file, time.Now().UnixNano()))
	if err := os.Rename(filepath.Join(s.dir, file), t.Moved); err != nil {
		t.Err = errors.Join(cause, err)
	}
	return t
}
