package image

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/trivet-node/trivet/internal/removal"
)

// Hold keeps layers (Image.Chain) for owner, whatever happens to the image, until Drop. It fails if one is
// already gone.
func (s *Store) Hold(owner string, chain []string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range chain {
		if _, ok := s.sizes[c]; !ok {
			return fmt.Errorf("layer %s: %w", c, ErrNotFound)
		}
	}
	s.holdLocked(owner, chain)
	return nil
}

func (s *Store) holdLocked(owner string, chain []string) {
	if s.holds[owner] == nil {
		s.holds[owner] = make(map[string]struct{})
	}
	for _, c := range chain {
		s.holds[owner][c] = struct{}{}
	}
}

func (s *Store) heldLocked(chain string) bool {
	for _, held := range s.holds {
		if _, ok := held[chain]; ok {
			return true
		}
	}
	return false
}

// Drop ends what owner holds. Repeating it is success.
func (s *Store) Drop(owner string) error {
	s.mu.Lock()
	_, held := s.holds[owner]
	delete(s.holds, owner)
	s.mu.Unlock()
	if !held {
		return nil
	}
	return s.Collect()
}

// Collect deletes the layers that no image refers to and nobody holds. Call it once after start,
// when all holders are known; Remove and Drop call it themselves.
func (s *Store) Collect() error {
	s.mu.Lock()
	doomed, err := s.condemn()
	s.mu.Unlock()
	for _, dir := range doomed {
		err = errors.Join(err, removal.Tree(dir))
	}
	return err
}

// condemn moves unneeded layers out of the way, which is quick, and needs s.mu; the caller deletes them
// without it.
func (s *Store) condemn() (doomed []string, err error) {
	needed := make(map[string]bool)
	for _, r := range s.images {
		for _, c := range r.Chain {
			needed[c] = true
		}
	}

	for _, chain := range s.holds {
		for c := range chain {
			needed[c] = true
		}
	}

	entries, err := os.ReadDir(filepath.Join(s.config.Dir, "layers"))
	if err != nil {
		return nil, err
	}

	for _, e := range entries {
		if needed[e.Name()] {
			continue
		}

		trash, err := os.MkdirTemp(filepath.Join(s.config.Dir, "tmp"), "trash-")
		if err != nil {
			return doomed, err
		}

		doomed = append(doomed, trash)
		err = os.Rename(filepath.Join(s.config.Dir, "layers", e.Name()), filepath.Join(trash, "layer"))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return doomed, err
		}

		delete(s.sizes, e.Name())
	}

	return doomed, nil
}
