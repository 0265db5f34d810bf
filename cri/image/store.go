package image

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/cri/registry"
	"github.com/trivet-node/trivet/internal/durable"
	"github.com/trivet-node/trivet/internal/removal"
)

// Config says where a Store lives and how it pulls.
type Config struct {
	Dir      string // e.g. /var/lib/trivet/cri/images: images/ (records), layers/<chain ID>/fs, tmp/
	Registry *registry.Client
	Parallel int      // layers fetched at once for each image; 0: 4
	Pinned   []string // names or digests of images that are marked as not to be garbage collected
	Log      *slog.Logger
}

// Store is the images of a node. Its methods may be called concurrently.
type Store struct {
	config  Config
	records *durable.Store[record]
	boot    string
	pulls   flights[string] // image ID, by reference and credentials
	layers  flights[layerInfo]
	syncing sync.WaitGroup

	mu     sync.Mutex                     // guards what follows, and the presence of layer directories
	images map[string]*record             // by ID; a record is replaced, never changed
	sizes  map[string]layerInfo           // of the layers on disk, by chain ID
	holds  map[string]map[string]struct{} // owner -> chain IDs that must stay

	arrivals int64         // images pulled so far: record.arrival
	arrived  chan struct{} // closed and replaced when a layer comes into place
}

// layerInfo is LAYERS/<chain ID>/layer.json.
type layerInfo struct {
	Bytes  int64
	Inodes int64
}

// Open reads the records of the directory. Torn records are set aside, and images whose layers are gone or
// may be torn by a power loss are forgotten: they are pulled again. Nothing is hashed. Layers that no image
// refers to stay until Collect, so that holders of an earlier process can be told first.
func Open(config Config) (*Store, error) {
	if config.Log == nil {
		config.Log = slog.New(slog.DiscardHandler)
	}
	if config.Parallel <= 0 {
		config.Parallel = 4
	}

	var err error
	if config.Pinned, err = writtenOut(config.Pinned); err != nil {
		return nil, err
	}

	// What killed pulls and removals left.
	if err := removal.Tree(filepath.Join(config.Dir, "tmp")); err != nil {
		return nil, err
	}

	for _, d := range []string{"layers", "tmp"} {
		if err := os.MkdirAll(filepath.Join(config.Dir, d), 0o700); err != nil {
			return nil, err
		}
	}

	if err := spread(filepath.Join(config.Dir, "tmp")); err != nil {
		config.Log.Debug("layers are not spread over the file system", "err", err)
	}

	records, err := durable.OpenStore[record](filepath.Join(config.Dir, "images"), false)
	if err != nil {
		return nil, err
	}

	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return nil, err
	}

	s := &Store{
		config:  config,
		records: records,
		boot:    strings.TrimSpace(string(boot)),
		images:  make(map[string]*record),
		sizes:   make(map[string]layerInfo),
		holds:   make(map[string]map[string]struct{}),
		arrived: make(chan struct{}),
	}
	if err := s.load(); err != nil {
		return nil, fmt.Errorf("read the image store %s: %w", config.Dir, err)
	}

	return s, nil
}

// writtenOut gives names the form that tags and digests have.
func writtenOut(names []string) ([]string, error) {
	var out []string
	for _, name := range names {
		ref, err := registry.ParseReference(name)
		if err != nil {
			return nil, fmt.Errorf("pinned image: %w", err)
		}
		out = append(out, ref.String())
	}
	return out, nil
}

func (s *Store) load() error {
	if err := s.loadLayers(); err != nil {
		return err
	}

	all, torn, err := s.records.List()
	if err != nil {
		return err
	}

	for _, t := range torn {
		s.config.Log.Warn("image record set aside", "record", t.Name, "moved", t.Moved, "err", t.Err)
	}

	for name, r := range all {
		if reason := s.unusable(name, &r); reason != "" {
			s.config.Log.Warn("image forgotten", "image", r.ID, "reason", reason)
			if err := s.records.Delete(name); err != nil {
				return err
			}

			continue
		}

		s.images[r.ID] = &r
	}

	s.settleTags()
	for _, r := range s.images {
		if !r.Synced {
			s.syncLater(r)
		}
	}

	return nil
}

func (s *Store) loadLayers() error {
	entries, err := os.ReadDir(filepath.Join(s.config.Dir, "layers"))
	if err != nil {
		return err
	}

	for _, e := range entries {
		data, err := os.ReadFile(filepath.Join(s.config.Dir, "layers", e.Name(), "layer.json"))
		var info layerInfo
		if err == nil {
			err = json.Unmarshal(data, &info)
		}

		// torn by a power loss: its images are forgotten below, and Collect deletes it
		if err != nil {
			s.config.Log.Warn("layer is torn", "layer", e.Name(), "err", err)
			continue
		}

		s.sizes[e.Name()] = info
	}

	return nil
}

func (s *Store) unusable(name string, r *record) string {
	if name != hexOf(r.ID) {
		return "the record's name is not its image"
	}
	if !r.Synced && r.Boot != s.boot {
		return "the machine went down before its layers were safe on the disk"
	}
	if err := r.parse(); err != nil {
		return err.Error()
	}

	for _, c := range r.Chain {
		if _, ok := s.sizes[c]; !ok {
			return "layer " + c + " is missing"
		}
	}

	return ""
}

// settleTags leaves each tag to the record that got it last: a crash can come between giving it to one and
// taking it from another.
func (s *Store) settleTags() {
	owner := make(map[string]string)
	for _, id := range slices.Sorted(maps.Keys(s.images)) {
		for tag, at := range s.images[id].Tags {
			if other, ok := owner[tag]; !ok || s.images[other].Tags[tag].Before(at) {
				owner[tag] = id
			}
		}
	}

	for id, r := range s.images {
		c := r.copy()
		maps.DeleteFunc(c.Tags, func(tag string, _ time.Time) bool { return owner[tag] != id })
		s.images[id] = c
	}
}

// Get finds an image by ID ("sha256:<hex>", <hex>, or a unique beginning of it of 7 digits or more), name or
// digest.
func (s *Store) Get(text string) (Image, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.find(text)
	if r == nil {
		return Image{}, fmt.Errorf("%s: %w", text, ErrNotFound)
	}
	return s.image(r)
}

// find needs s.mu.
func (s *Store) find(text string) *record {
	if hex := strings.TrimPrefix(text, "sha256:"); isHex(hex) && len(hex) >= 7 {
		if r := s.images["sha256:"+hex]; r != nil {
			return r
		}

		var found []*record
		for id, r := range s.images {
			if strings.HasPrefix(hexOf(id), hex) {
				found = append(found, r)
			}
		}

		if len(found) == 1 {
			return found[0]
		}
	}

	ref, err := registry.ParseReference(text)
	if err != nil {
		return nil
	}

	name := ref.String()
	for _, r := range s.images {
		if _, tagged := r.Tags[name]; tagged || slices.Contains(r.Digests, name) {
			return r
		}
	}

	return nil
}

func isHex(s string) bool {
	return s != "" && len(s) <= 128 && strings.Trim(s, "0123456789abcdef") == ""
}

// List returns all images, sorted by ID.
func (s *Store) List() []Image {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]Image, 0, len(s.images))
	for _, id := range slices.Sorted(maps.Keys(s.images)) {
		if i, err := s.image(s.images[id]); err == nil {
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

	i := Image{
		ID:        r.ID,
		Tags:      slices.Sorted(maps.Keys(r.Tags)),
		Digests:   slices.Clone(r.Digests),
		Artifact:  r.Artifact,
		Pinned:    r.Pinned,
		Size:      int64(len(r.Config)),
		Config:    *r.parsed,
		RawConfig: r.Config,
		Chain:     slices.Clone(r.Chain),
	}

	slices.Reverse(i.Digests)

	for _, c := range r.Chain {
		i.Size += s.sizes[c].Bytes
		i.Layers = append(i.Layers, s.layerDir(c))
	}

	for _, name := range slices.Concat(i.Tags, i.Digests) {
		i.Pinned = i.Pinned || slices.Contains(s.config.Pinned, name)
	}

	return i, nil
}

func (s *Store) layerDir(chain string) string {
	return filepath.Join(s.config.Dir, "layers", chain, "fs")
}

// Remove forgets an image with all its names and frees the layers that nothing else needs. Containers that
// hold layers keep them. An image that is not there is success.
func (s *Store) Remove(text string) error {
	s.mu.Lock()
	r := s.find(text)
	if r == nil {
		s.mu.Unlock()
		return nil
	}

	if err := s.records.Delete(hexOf(r.ID)); err != nil {
		s.mu.Unlock()
		return fmt.Errorf("remove image %s: %w", r.ID, err)
	}

	delete(s.images, r.ID)
	s.mu.Unlock()
	return s.Collect()
}

// Usage is what the layers on disk take.
func (s *Store) Usage() (bytes, inodes int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range s.sizes {
		bytes += l.Bytes
		inodes += l.Inodes
	}
	return bytes, inodes
}

// Dir is where the store lives, for ImageFsInfo.
func (s *Store) Dir() string { return s.config.Dir }

// Close waits for what still runs in the background: pulls that were given up and are on their way down, and
// the syncs of pulled images.
func (s *Store) Close() {
	s.pulls.running.Wait()
	s.layers.running.Wait()
	s.syncing.Wait()
}

// spread asks ext4 to put the directories in dir far from each other (chattr +T). Without it, a layer lands
// in the block group where another one was just deleted, and ext4, which does not reuse the inodes of the
// last minutes, walks over all of those for each new file: a pull of many small files takes three times as
// long then. Other file systems do not know the flag, which is no error.
func spread(dir string) error {
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
