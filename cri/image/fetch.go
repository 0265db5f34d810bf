package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/trivet-node/trivet/cri/image/layer"
	"github.com/trivet-node/trivet/internal/removal"
)

// layerJob is one layer to bring in.
type layerJob struct {
	blob   ocispec.Descriptor
	diff   digest.Digest // of the uncompressed content; "" if nothing tells it
	file   string        // the blob is no archive but a file of this name
	chain  []string      // this layer's name last, after those of the layers below
	source source
	slots  chan struct{} // limits how many are fetched at once
}

func (j layerJob) name() string { return j.chain[len(j.chain)-1] }

func (s *Store) hasLayer(chain string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.sizes[chain]
	return ok
}

// awaitLayer waits until a layer is in place, whoever brings it.
func (s *Store) awaitLayer(ctx context.Context, chain string) error {
	for {
		s.mu.Lock()
		_, ok := s.sizes[chain]
		arrived := s.arrived
		s.mu.Unlock()
		if ok {
			return nil
		}

		select {
		case <-arrived:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// fetchLayer brings a layer in, or waits for another pull that does. If that other one fails, for reasons of
// its own perhaps, such as worse credentials, this one tries itself.
func (s *Store) fetchLayer(ctx context.Context, job layerJob) error {
	name := job.name()
	for {
		_, joined, err := s.layers.do(
			ctx,
			name,
			func(ctx context.Context) (layerInfo, error) { return s.bringIn(ctx, name, job) },
		)
		if err == nil || !joined || ctx.Err() != nil {
			return err
		}
	}
}

// bringIn fetches, verifies and unpacks into a temporary directory, adds what depends on the layers below,
// and renames it into place.
func (s *Store) bringIn(ctx context.Context, name string, job layerJob) (info layerInfo, err error) {
	if s.hasLayer(name) {
		return info, nil
	}

	temp, err := os.MkdirTemp(filepath.Join(s.config.Dir, "tmp"), "layer-")
	if err != nil {
		return info, err
	}
	defer func() { err = errors.Join(err, removal.Tree(temp)) }()

	result, err := s.unpack(ctx, filepath.Join(temp, "fs"), job)
	if err != nil {
		return info, fmt.Errorf("layer %s: %w", job.blob.Digest, err)
	}

	var lower []string
	for _, c := range job.chain[:len(job.chain)-1] {
		if err := s.awaitLayer(ctx, c); err != nil {
			return info, err
		}

		lower = append(lower, s.layerDir(c))
	}

	if err := layer.Settle(ctx, filepath.Join(temp, "fs"), lower, &result); err != nil {
		return info, fmt.Errorf("layer %s: %w", job.blob.Digest, err)
	}

	if result.Dropped > 0 {
		s.config.Log.Info("attributes of overlayfs in a layer are left out",
			"layer", job.blob.Digest, "number", result.Dropped)
	}

	info = layerInfo{Bytes: result.Bytes, Inodes: result.Inodes}
	return info, s.commitLayer(temp, name, info)
}

func (s *Store) unpack(ctx context.Context, dir string, job layerJob) (layer.Result, error) {
	select {
	case job.slots <- struct{}{}:
		defer func() { <-job.slots }()
	case <-ctx.Done():
		return layer.Result{}, context.Cause(ctx)
	}

	blob, err := job.source.Blob(ctx, job.blob.Digest, job.blob.Size)
	if err != nil {
		return layer.Result{}, err
	}
	defer blob.Close()

	from := layer.Source{
		Blob:      blob,
		Size:      job.blob.Size,
		MediaType: job.blob.MediaType,
		Digest:    job.blob.Digest,
		DiffID:    job.diff,
	}
	if job.file != "" {
		return layer.UnpackFile(ctx, dir, job.file, from)
	}

	return layer.Unpack(ctx, dir, from)
}

func (s *Store) commitLayer(temp, name string, info layerInfo) error {
	data, err := json.Marshal(info)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(temp, "layer.json"), data, 0o600); err != nil {
		return err
	}

	s.mu.Lock()
	defer s.mu.Unlock()

	if _, there := s.sizes[name]; there {
		// a pull that was given up still finished it, and containers may use it by now
		return nil
	}

	// the pulls that wanted it have gone, and so has the collection after them
	if !s.heldLocked(name) {
		return fmt.Errorf("put layer %s in place: nobody waits for it any more", name)
	}

	target := filepath.Join(s.config.Dir, "layers", name)
	err = os.Rename(temp, target)

	// a torn one from before a power loss
	if errors.Is(err, fs.ErrExist) {
		if err = removal.Tree(target); err == nil {
			err = os.Rename(temp, target)
		}
	}

	if err != nil {
		return fmt.Errorf("put layer %s in place: %w", name, err)
	}

	s.sizes[name] = info
	close(s.arrived)
	s.arrived = make(chan struct{})
	return nil
}
