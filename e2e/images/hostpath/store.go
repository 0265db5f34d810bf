package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
)

// volume is what is recorded of a volume.
type volume struct {
	ID        string
	Name      string
	Size      int64
	Block     bool
	Ephemeral bool
	Snapshot  string            // that it was made of
	Source    string            // volume that it was made of
	Modified  map[string]string // parameters

	Attached  bool
	Staged    []string // paths
	Published []string
}

// snapshot is what is recorded of a snapshot.
type snapshot struct {
	ID, Name, Volume string
	Size             int64
	Block            bool
	Made             int64 // nanoseconds since 1970
}

// store has the volumes and snapshots of a directory: state.json, and a directory or a file for each.
type store struct {
	dir       string
	Volumes   map[string]*volume
	Snapshots map[string]*snapshot
}

func openStore(dir string) (*store, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}

	s := &store{dir: dir, Volumes: map[string]*volume{}, Snapshots: map[string]*snapshot{}}
	data, err := os.ReadFile(filepath.Join(dir, "state.json"))
	if errors.Is(err, os.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return nil, err
	}
	return s, json.Unmarshal(data, s)
}

func (s *store) save() error {
	data, err := json.Marshal(s)
	if err != nil {
		return err
	}

	path := filepath.Join(s.dir, "state.json")
	if err := os.WriteFile(path+".new", data, 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// path of the contents of a volume or a snapshot. IDs are the driver's own, or kubelet's for ephemeral
// volumes.
func (s *store) path(id string) string { return filepath.Join(s.dir, id) }

// validID refuses what would be a path outside the directory.
func validID(id string) bool {
	return id != "" && id != "state.json" && filepath.Base(id) == id &&
		id != ".." && id != "."
}

// create makes the contents of a volume, from those of a volume or a snapshot if there is one, and records
// it. What a create that was killed has left is made again.
func (s *store) create(v *volume, from string) error {
	path := s.path(v.ID)
	if err := os.RemoveAll(path); err != nil {
		return err
	}

	var err error
	switch {
	case from != "":
		err = copyContents(s.path(from), path)
	case v.Block:
		err = os.WriteFile(path, nil, 0o600)
	default:
		if err = os.Mkdir(path, 0o777); err == nil {
			err = os.Chmod(path, 0o777)
		}
	}

	if err == nil && v.Block {
		err = os.Truncate(path, v.Size)
	}
	if err != nil {
		return errors.Join(err, os.RemoveAll(path))
	}

	s.Volumes[v.ID] = v
	return s.save()
}

// copyContents copies a directory or a file with owners, modes, times and holes.
func copyContents(from, to string) error {
	if out, err := exec.Command("cp", "-a", from, to).CombinedOutput(); err != nil {
		return fmt.Errorf("copy %s: %w: %s", from, err, out)
	}
	return nil
}

// remove removes a volume or a snapshot; one that is not there is removed already.
func (s *store) remove(id string) error {
	if err := os.RemoveAll(s.path(id)); err != nil {
		return err
	}

	delete(s.Volumes, id)
	delete(s.Snapshots, id)
	return s.save()
}

func (s *store) volumeNamed(name string) *volume {
	for _, v := range s.Volumes {
		if v.Name == name {
			return v
		}
	}
	return nil
}

func (s *store) snapshotNamed(name string) *snapshot {
	for _, snap := range s.Snapshots {
		if snap.Name == name {
			return snap
		}
	}
	return nil
}

// sorted are the IDs of all of a kind, in order.
func sorted[T any](all map[string]*T) []string {
	ids := make([]string, 0, len(all))
	for id := range all {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}
