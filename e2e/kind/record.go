package kind

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/trivet-node/trivet/e2e/kind/smoke"
	"github.com/trivet-node/trivet/internal/durable"
)

// Record says which cluster is up, or was about to be.
type Record struct {
	// Image is the published image of its nodes, on the user's Docker; "" for one that was made here.
	Image string `json:",omitempty"`

	// Trivet says whether its nodes have trivet from the start.
	Trivet bool `json:",omitempty"`

	// Family is that of its addresses; "" for IPv4.
	Family smoke.Family `json:",omitempty"`

	// Kubernetes is the directory with the programs of the version that it was created with; "" for that of
	// the reference programs.
	Kubernetes string `json:",omitempty"`

	// Complete says that nothing of it is missing: it was not cut off while it was made.
	Complete bool

	// Parts is how many parts of trivet are in it, from the first, and were shown to work.
	Parts int `json:",omitempty"`
}

// recordFile is the Record in a cluster's directory.
const recordFile = "cluster.json"

// ReadRecord reads the record in a cluster's directory; fs.ErrNotExist when no cluster is up.
func ReadRecord(dir string) (Record, error) {
	var r Record
	file := (&Cluster{Dir: dir}).path(recordFile)
	data, err := os.ReadFile(file)
	if err != nil {
		return r, err
	}
	if err := json.Unmarshal(data, &r); err != nil {
		return r, fmt.Errorf("%s: %w", file, err)
	}
	return r, nil
}

func (c *Cluster) write(r Record) error {
	data, err := json.Marshal(r)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(c.Dir, 0o755); err != nil {
		return err
	}
	return durable.WriteVolatile(c.path(recordFile), data, 0o644)
}

// claim records the cluster before there is anything of it, unless it is there. What is there without a
// record is not ours: neither this call nor Down may delete it.
func (c *Cluster) claim(ctx context.Context) error {
	have, err := ReadRecord(c.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		if err := c.refuseOthers(ctx); err != nil {
			return err
		}
		return c.write(recordOf(c))
	}
	if err != nil {
		return err
	}

	have.Complete, have.Parts = false, 0
	if have != recordOf(c) {
		return fmt.Errorf("another kind cluster is up (%s): make kind-down takes it down", have)
	}
	return nil
}

// recordOf is that of the cluster before there is anything of it.
func recordOf(c *Cluster) Record {
	return Record{
		Image:      c.Image,
		Trivet:     c.Trivet,
		Family:     c.Family,
		Kubernetes: c.Kubernetes,
	}
}

// String describes the cluster in a few words.
func (r Record) String() string {
	image := r.Image
	if image == "" {
		image = "an image made here"
	}
	if r.Trivet {
		image += ", with trivet from the start"
	}
	if r.Family != "" {
		image += ", " + string(r.Family)
	}
	if r.Kubernetes != "" {
		image += ", Kubernetes of " + r.Kubernetes
	}
	return image
}
