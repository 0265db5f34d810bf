package image

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"

	"github.com/trivet-node/trivet/internal/removal"
)

// layerInfo is LAYERS/<chain ID>/layer.json.
type layerInfo struct {
	Bytes  int64
	Inodes int64
}

// layers are the unpacked layers on disk, by chain ID, and those who need them. They are not safe for
// concurrent use: Store.mu guards them.
type layers struct {
	dir string // LAYERS
	tmp string // on the same filesystem

	present map[string]layerInfo
	holds   map[string]map[string]struct{} // owner -> chain IDs that must stay
	arrived chan struct{}                  // closed and replaced when a layer comes into place
}

func newLayers(dir, tmp string) *layers {
	return &layers{
		dir:     dir,
		tmp:     tmp,
		present: make(map[string]layerInfo),
		holds:   make(map[string]map[string]struct{}),
		arrived: make(chan struct{}),
	}
}

// load reads what is on the disk. A layer that a power loss has damaged does not count; collect deletes it.
func (l *layers) load(log *slog.Logger) error {
	entries, err := os.ReadDir(l.dir)
	if err != nil {
		return err
	}

	for _, e := range entries {
		data, err := os.ReadFile(filepath.Join(l.dir, e.Name(), "layer.json"))
		var info layerInfo
		if err == nil {
			err = json.Unmarshal(data, &info)
		}

		if err != nil {
			log.Warn("layer is damaged", "layer", e.Name(), "err", err)
			continue
		}

		l.present[e.Name()] = info
	}

	return nil
}

func (l *layers) has(chain string) bool {
	_, ok := l.present[chain]
	return ok
}

// path is the directory of a layer's files.
func (l *layers) path(chain string) string { return filepath.Join(l.dir, chain, "fs") }

// missing returns the first layer of a chain that is not there; "" if all are.
func (l *layers) missing(chain []string) string {
	for _, c := range chain {
		if !l.has(c) {
			return c
		}
	}
	return ""
}

// hold keeps layers, even before they arrive, until drop.
func (l *layers) hold(owner string, chain []string) {
	if l.holds[owner] == nil {
		l.holds[owner] = make(map[string]struct{})
	}
	for _, c := range chain {
		l.holds[owner][c] = struct{}{}
	}
}

// drop ends what owner holds. It reports whether that was anything.
func (l *layers) drop(owner string) bool {
	_, held := l.holds[owner]
	delete(l.holds, owner)
	return held
}

func (l *layers) isHeld(chain string) bool {
	for _, held := range l.holds {
		if _, ok := held[chain]; ok {
			return true
		}
	}
	return false
}

// commit puts an unpacked layer, the directory temp, in place.
func (l *layers) commit(temp, chain string, info layerInfo) error {
	// A pull that was cancelled still finished it, and containers may use it by now.
	if l.has(chain) {
		return nil
	}

	// The pulls that wanted it are gone, and so is the collection after them.
	if !l.isHeld(chain) {
		return fmt.Errorf("put layer %s in place: nobody needs it any more", chain)
	}

	target := filepath.Join(l.dir, chain)
	err := os.Rename(temp, target)
	if errors.Is(err, fs.ErrExist) {
		// A power loss has damaged the one that is there.
		if err = removal.Tree(target); err == nil {
			err = os.Rename(temp, target)
		}
	}

	if err != nil {
		return fmt.Errorf("put layer %s in place: %w", chain, err)
	}

	l.present[chain] = info
	close(l.arrived)
	l.arrived = make(chan struct{})
	return nil
}

// collect moves layers that nobody needs out of the way, which is quick, and returns where: the caller
// deletes them without the lock. referenced are those that images need.
func (l *layers) collect(referenced map[string]bool) (unneeded []string, err error) {
	needed := maps.Clone(referenced)
	for _, held := range l.holds {
		for c := range held {
			needed[c] = true
		}
	}

	entries, err := os.ReadDir(l.dir)
	if err != nil {
		return nil, err
	}

	for _, e := range entries {
		chain := e.Name()
		if needed[chain] {
			continue
		}

		// Each goes into a directory of its own, so that names cannot clash.
		trash, err := os.MkdirTemp(l.tmp, "trash-")
		if err != nil {
			return unneeded, err
		}

		unneeded = append(unneeded, trash)
		err = os.Rename(filepath.Join(l.dir, chain), filepath.Join(trash, "layer"))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return unneeded, err
		}

		delete(l.present, chain)
	}

	return unneeded, nil
}

// usage is what all layers take.
func (l *layers) usage() (bytes, inodes int64) {
	for _, info := range l.present {
		bytes += info.Bytes
		inodes += info.Inodes
	}
	return bytes, inodes
}
