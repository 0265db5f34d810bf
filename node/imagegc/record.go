package imagegc

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"time"

	"github.com/trivet-node/trivet/internal/boundedfile"
	"github.com/trivet-node/trivet/internal/durable"
)

// maxRecords bounds the bytes of the file: an image takes some 200.
const maxRecords = 4 << 20

// record is what is remembered of an image.
type record struct {
	Seen time.Time `json:"firstDetected"`

	// Used is when it was last used. It is not kept up to date while the image is in use.
	Used  time.Time `json:"lastUsed,omitzero"`
	InUse bool      `json:"inUse,omitempty"`
}

// records remember when each image was first seen and last used, by its ID, beyond the life of the agent. The
// file is written only when an image comes or goes, or begins or ends to be used.
type records struct {
	path  string
	known map[string]record

	// written is what the file has.
	written map[string]record
}

// openRecords reads the file. Without one, or if it cannot be read, which is the error, nothing is known.
func openRecords(dir string, now time.Time) (*records, error) {
	r := &records{path: filepath.Join(dir, "image_gc_state.json"), known: map[string]record{}}
	data, err := boundedfile.Read(r.path, maxRecords)
	if errors.Is(err, fs.ErrNotExist) {
		return r, nil
	}
	if err == nil {
		err = json.Unmarshal(data, &r.known)
	}

	if err != nil {
		r.known = map[string]record{}
		return r, fmt.Errorf("records of the use of images %s: %w", r.path, err)
	}

	// What was in use may have been used until now. The clock may have been set back.
	for id, one := range r.known {
		if one.InUse || one.Used.After(now) {
			one.Used = now
		}
		if one.Seen.After(now) {
			one.Seen = now
		}

		r.known[id] = one
	}

	return r, nil
}

// update takes what there is now, completes the images by what is remembered of them, and forgets others.
func (r *records) update(images []image, now time.Time) {
	known := make(map[string]record, len(images))
	for i := range images {
		one, ok := r.known[images[i].id]
		if !ok {
			one.Seen = now
		}

		one.InUse = images[i].inUse
		if one.InUse {
			one.Used = now
		}

		known[images[i].id] = one
		images[i].seen = one.Seen
		images[i].used = one.Used
	}

	r.known = known
}

// save writes the file if it differs by more than the time at which images in use were seen.
func (r *records) save() error {
	if r.written != nil && sameRecords(r.written, r.known) {
		return nil
	}

	data, err := json.Marshal(r.known)
	if err != nil {
		return err
	}

	// A power loss may take it: then it is as if the images were seen for the first time.
	if err := durable.WriteVolatile(r.path, data, 0o600); err != nil {
		return fmt.Errorf("records of the use of images: %w", err)
	}

	r.written = maps.Clone(r.known)
	return nil
}

func sameRecords(a, b map[string]record) bool {
	if len(a) != len(b) {
		return false
	}
	for id, was := range a {
		is, ok := b[id]
		if !ok || is.InUse != was.InUse || !is.InUse && !is.Used.Equal(was.Used) {
			return false
		}
	}
	return true
}
