package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/trivet-node/trivet/cri/image/layer"
	"github.com/trivet-node/trivet/internal/removal"
)

// layerJob is one layer to bring in.
type layerJob struct {
	blob ocispec.Descriptor

	// chain is this layer's name, after those of the layers below.
	chain []string

	// diff is the digest of the uncompressed content; "" if nothing says it.
	diff digest.Digest

	// file, if not "", is the name of a file: the blob is not an archive, but its content.
	file string
}

func (j layerJob) name() string { return j.chain[len(j.chain)-1] }

func (j layerJob) below() []string { return j.chain[:len(j.chain)-1] }

// fetchLayer brings a layer in, or waits for another pull that does. If that fails, for reasons of its own
// perhaps, such as worse credentials, this one tries itself. slots limits how many layers are fetched at
// once.
func (p *pull) fetchLayer(ctx context.Context, job layerJob, slots chan struct{}) error {
	for {
		work := func(ctx context.Context) (layerInfo, error) { return p.bringIn(ctx, job, slots) }
		_, joined, err := p.store.fetches.Do(ctx, p.circle+job.name(), work)
		if err == nil || !joined || ctx.Err() != nil {
			return err
		}
	}
}

// bringIn fetches, verifies and unpacks into a temporary directory, adds what depends on the layers below,
// and renames it into place.
func (p *pull) bringIn(ctx context.Context, job layerJob, slots chan struct{}) (info layerInfo, err error) {
	s := p.store
	if s.hasLayer(job.name()) {
		return info, nil
	}

	// Until the rename, all is below tmp, which the next start empties.
	temp, err := os.MkdirTemp(filepath.Join(s.cfg.Dir, "tmp"), "layer-")
	if err != nil {
		return info, err
	}
	defer func() { err = errors.Join(err, removal.Tree(temp)) }()

	files := filepath.Join(temp, "fs")
	result, err := p.unpack(ctx, temp, job, slots)
	if err != nil {
		return info, fmt.Errorf("layer %s: %w", job.blob.Digest, err)
	}

	// The layers below may still be on their way. They come without this one, so nobody waits in a circle.
	var lower []string
	for _, chain := range job.below() {
		if err := s.awaitLayer(ctx, chain); err != nil {
			return info, err
		}

		lower = append(lower, s.layers.path(chain))
	}

	// All layers below are in place, and this pull holds them.
	if err := layer.Complete(ctx, files, lower, &result); err != nil {
		return info, fmt.Errorf("layer %s: %w", job.blob.Digest, err)
	}

	if result.Dropped > 0 {
		s.cfg.Log.Info("attributes of overlayfs in a layer are left out",
			"layer", job.blob.Digest, "number", result.Dropped)
	}

	info = layerInfo{Bytes: result.Bytes, Inodes: result.Inodes}
	return info, s.commitLayer(temp, job.name(), info)
}

// unpack fetches and unpacks a layer into the directory temp: its files into fs, and tape beside them.
func (p *pull) unpack(
	ctx context.Context, temp string, job layerJob, slots chan struct{},
) (layer.Result, error) {
	// A layer that waits for those below keeps no slot: only fetching is limited.
	select {
	case slots <- struct{}{}:
		defer func() { <-slots }()
	case <-ctx.Done():
		return layer.Result{}, context.Cause(ctx)
	}

	blob, err := p.from.Blob(ctx, job.blob.Digest, job.blob.Size)
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
	files := filepath.Join(temp, "fs")
	if job.file != "" {
		return layer.UnpackFile(ctx, files, job.file, from)
	}

	return unpackTaped(ctx, files, filepath.Join(temp, tapeFile), from)
}

// tapeFile is the name of a layer's tape, beside fs.
const tapeFile = "tape"

// unpackTaped unpacks a layer and keeps its tape, if there is one.
func unpackTaped(ctx context.Context, dir, file string, from layer.Source) (result layer.Result, err error) {
	tape, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return result, err
	}
	defer func() { err = errors.Join(err, tape.Close()) }()

	from.Tape = tape
	result, err = layer.Unpack(ctx, dir, from)
	if err != nil {
		return result, err
	}
	if !result.Taped {
		return result, os.Remove(file)
	}

	info, err := tape.Stat()
	if err != nil {
		return result, err
	}

	result.Bytes += info.Size()
	result.Inodes++
	return result, nil
}

// commitLayer puts an unpacked layer, the directory temp, in place.
func (s *Store) commitLayer(temp, chain string, info layerInfo) error {
	data, err := json.Marshal(info)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(temp, "layer.json"), data, 0o600); err != nil {
		return err
	}

	s.mu.Lock()
	defer s.mu.Unlock()
	return s.layers.commit(temp, chain, info)
}
