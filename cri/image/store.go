package image

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/cri/image/flight"
	"github.com/trivet-node/trivet/cri/registry"
	"github.com/trivet-node/trivet/internal/bootid"
	"github.com/trivet-node/trivet/internal/durable"
	"github.com/trivet-node/trivet/internal/removal"
)

// Config says where a Store lives and how it pulls.
type Config struct {
	// Dir is such as /var/lib/trivet/cri/images. It has images/ (records), layers/<chain ID>/fs and tmp/.
	Dir string

	Registry *registry.Client

	// Parallel is how many layers are fetched at once for each image; 0 means 4.
	Parallel int

	// Pinned are names or digests of images that are marked as not to be garbage collected.
	Pinned []string

	Log *slog.Logger
}

// Store is the images of a node. Its methods may be called concurrently.
type Store struct {
	cfg     Config
	pulls   flight.Group[string]    // image ID, by reference and credentials
	fetches flight.Group[layerInfo] // by circle and chain ID
	syncing sync.WaitGroup

	// mu guards all below, and the presence of layer directories.
	mu     sync.Mutex
	images *index
	layers *layers
}

// Open reads the records of the directory. Records that cannot be read are set aside. Images whose layers are
// gone, or may have been damaged by a power loss, are forgotten: they are pulled again. Nothing is hashed.
// Layers that no image refers to stay until Collect, so that those who held them before a restart can hold
// them again.
func Open(cfg Config) (*Store, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Parallel <= 0 {
		cfg.Parallel = 4
	}

	var err error
	cfg.Pinned, err = fullNames(cfg.Pinned)
	if err != nil {
		return nil, err
	}
	if err := prepare(cfg); err != nil {
		return nil, err
	}

	// The records count only together with the boot that wrote them, unless they are synced.
	records, err := durable.OpenStore[record](filepath.Join(cfg.Dir, "images"), false)
	if err != nil {
		return nil, err
	}

	boot, err := bootid.Read()
	if err != nil {
		return nil, err
	}

	s := &Store{
		cfg: cfg,
		images: &index{
			records: records,
			boot:    boot,
			byID:    make(map[string]*record),
		},
		layers: newLayers(filepath.Join(cfg.Dir, "layers"), filepath.Join(cfg.Dir, "tmp")),
	}
	if err := s.load(); err != nil {
		return nil, fmt.Errorf("read the image store %s: %w", cfg.Dir, err)
	}

	return s, nil
}

// prepare makes the directories and removes what pulls and removals left that were killed.
func prepare(cfg Config) error {
	tmp := filepath.Join(cfg.Dir, "tmp")
	if err := removal.Tree(tmp); err != nil {
		return err
	}

	for _, dir := range []string{filepath.Join(cfg.Dir, "layers"), tmp} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
	}

	if err := distribute(tmp); err != nil {
		cfg.Log.Debug("layers are not distributed over the filesystem", "err", err)
	}

	return nil
}

// distribute asks ext4 to put the directories in dir far from each other (chattr +T). Without it, a layer
// lands in the block group where another one was just deleted, and ext4, which does not reuse the inodes of
// the last minutes, walks over all of those for each new file: a pull of many small files takes three times
// as long then. Other filesystems do not know the flag, which is not an error.
func distribute(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()

	flags, err := unix.IoctlGetInt(int(f.Fd()), unix.FS_IOC_GETFLAGS)
	if err != nil {
		return fmt.Errorf("read flags of %s: %w", dir, err)
	}

	// FS_TOPDIR_FL
	const topDir = 0x00020000
	return unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, flags|topDir)
}

// fullNames gives names the form that tags and digests have.
func fullNames(short []string) ([]string, error) {
	var full []string
	for _, name := range short {
		ref, err := registry.ParseReference(name)
		if err != nil {
			return nil, fmt.Errorf("pinned image: %w", err)
		}
		full = append(full, ref.String())
	}
	return full, nil
}

func (s *Store) load() error {
	if err := s.layers.load(s.cfg.Log); err != nil {
		return err
	}

	err := s.images.load(s.cfg.Log, func(r *record) string {
		if missing := s.layers.missing(r.Chain); missing != "" {
			return "layer " + missing + " is missing"
		}

		return ""
	})
	if err != nil {
		return err
	}

	// A sync that ends replaces its record, so the lock is needed from the first one on.
	s.mu.Lock()
	defer s.mu.Unlock()

	for _, r := range s.images.byID {
		if !r.Synced {
			s.syncLater(r)
		}
	}

	return nil
}

// Get finds an image by ID ("sha256:<hex>", <hex>, or a unique beginning of it of 7 digits or more), name or
// digest.
func (s *Store) Get(text string) (Image, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.images.find(text)
	if r == nil {
		return Image{}, fmt.Errorf("%s: %w", text, ErrNotFound)
	}
	return s.image(r)
}

// List returns all images, sorted by ID.
func (s *Store) List() []Image {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]Image, 0, len(s.images.byID))
	for _, id := range s.images.ids() {
		if i, err := s.image(s.images.byID[id]); err == nil {
			list = append(list, i)
		}
	}
	return list
}

// image needs s.mu.
func (s *Store) image(r *record) (Image, error) {
	if err := r.parse(); err != nil {
		return Image{}, err
	}

	i := imageOf(r)
	for _, c := range r.Chain {
		i.Size += s.layers.present[c].Bytes
		i.Layers = append(i.Layers, s.layers.path(c))
	}

	for _, name := range slices.Concat(i.Tags, i.Digests) {
		i.Pinned = i.Pinned || slices.Contains(s.cfg.Pinned, name)
	}

	return i, nil
}

// Hold keeps layers (Image.Chain) for owner, whatever happens to the image, until Drop. It fails if one is
// already gone.
func (s *Store) Hold(owner string, chain []string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if missing := s.layers.missing(chain); missing != "" {
		return fmt.Errorf("layer %s: %w", missing, ErrNotFound)
	}
	s.layers.hold(owner, chain)
	return nil
}

// Drop ends what owner holds. Repeating it is success.
func (s *Store) Drop(owner string) error {
	s.mu.Lock()
	held := s.layers.drop(owner)
	s.mu.Unlock()
	if !held {
		return nil
	}
	return s.Collect()
}

// Collect deletes the layers that no image refers to and nobody holds. Call it once after a start, when all
// who hold layers have said so; Remove and Drop call it themselves.
func (s *Store) Collect() error {
	s.mu.Lock()
	referenced := make(map[string]bool)
	for _, r := range s.images.byID {
		for _, c := range r.Chain {
			referenced[c] = true
		}
	}

	unneeded, err := s.layers.collect(referenced)
	s.mu.Unlock()

	for _, dir := range unneeded {
		err = errors.Join(err, removal.Tree(dir))
	}

	return err
}

// Usage returns what the layers on disk take.
func (s *Store) Usage() (bytes, inodes int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.layers.usage()
}

// Dir returns where the store lives, for ImageFsInfo.
func (s *Store) Dir() string { return s.cfg.Dir }

// Close waits for what still runs in the background: pulls that were cancelled, and the syncs of pulled
// images.
func (s *Store) Close() {
	s.pulls.Wait()
	s.fetches.Wait()
	s.syncing.Wait()
}

// add records an image whose layers are all in place, with its new names. It calls arrived for one that was
// not here before: its layers are not yet safe on the disk.
func (s *Store) add(r *record, n names, arrived func(*record)) error {
	s.mu.Lock()
	defer s.mu.Unlock()

	if known := s.images.byID[r.ID]; known != nil {
		r = known
	}
	if missing := s.layers.missing(r.Chain); missing != "" {
		return fmt.Errorf("layer %s: %w", missing, ErrNotFound)
	}

	stored, isNew, err := s.images.add(r, n)
	if isNew {
		arrived(stored)
	}

	return err
}

// rename gives an image that is here the names by which it has come again. It reports whether the image is
// here.
func (s *Store) rename(id string, n names) bool {
	r := s.record(id)
	return r != nil && s.add(r, n, s.syncLater) == nil
}

// record returns the record of an image; nil if it is not here.
func (s *Store) record(id string) *record {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.images.byID[id]
}

// syncLater makes the layers of a new image safe on the disk without anybody waiting: the image serves at
// once, and until the sync is done, its record counts only for this boot, in which the page cache has what
// the disk lacks.
func (s *Store) syncLater(r *record) {
	s.syncing.Go(func() {
		if err := s.sync(r); err != nil {
			s.cfg.Log.Error("image is not safe on the disk; it will be pulled again after a reboot",
				"image", r.ID, "err", err)
		}
	})
}

// sync makes the layers of images safe on the disk, and marks them so.
func (s *Store) sync(added ...*record) (err error) {
	dir, err := os.Open(s.cfg.Dir)
	if err != nil {
		return err
	}
	defer dir.Close()

	if err := unix.Syncfs(int(dir.Fd())); err != nil {
		return fmt.Errorf("syncfs %s: %w", s.cfg.Dir, err)
	}

	s.mu.Lock()
	defer s.mu.Unlock()

	for _, r := range added {
		err = errors.Join(err, s.images.setSynced(r))
	}

	return err
}

// hasLayer reports whether a layer is in place.
func (s *Store) hasLayer(chain string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.layers.has(chain)
}

// awaitLayer waits until a layer is in place, whichever pull brings it.
func (s *Store) awaitLayer(ctx context.Context, chain string) error {
	for {
		s.mu.Lock()
		has := s.layers.has(chain)
		arrived := s.layers.arrived
		s.mu.Unlock()
		if has {
			return nil
		}

		select {
		case <-arrived:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
