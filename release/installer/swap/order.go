// Package swap exchanges what has a seat of a node, such as its container runtime, and takes the exchange
// back when nobody confirms in time that the node works. It is two sides that share a folder on the node's
// disk: who gives an order and confirms it (a pod, which the exchange may end and start again), and the
// Machine, which carries it out on the host. Each file has one writer; each side may be killed at any
// instruction.
package swap

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"time"

	"github.com/trivet-node/trivet/internal/boundedfile"
	"github.com/trivet-node/trivet/internal/durable"
)

// State is what has the seat: the name of a set of trivet's files (package payload), or Out.
type State string

// Out is the state of a seat that has what the node had before.
const Out State = ""

// String is the state in a log.
func (s State) String() string {
	if s == Out {
		return "what was there before"
	}
	return string(s)
}

// Order is what the pod asks for.
type Order struct {
	// ID is another one for each order.
	ID string `json:"id"`

	To State `json:"to"`

	// Version is that of the program which gave the order, for people.
	Version string `json:"version"`

	// Trial is how long the node may take from when it was switched until it is confirmed that it works.
	Trial time.Duration `json:"trial"`

	// Images are those of the node's pods, which the next runtime should have, too.
	Images []string `json:"images,omitempty"`
}

// Phase is how far an order is.
type Phase string

// The phases. Only Trying waits for the pod.
const (
	Switching Phase = "switching"
	Trying    Phase = "trying"
	Settling  Phase = "settling"
	Reverting Phase = "reverting"
	Done      Phase = "done"
)

// Record is what the machine has done.
type Record struct {
	Order Order `json:"order"`

	// From is what had the seat when the order was taken.
	From State `json:"from"`

	Phase Phase `json:"phase"`

	// Taken is when the machine took the order. Attempts counts the starts of the phase Switching.
	Taken    time.Time `json:"taken"`
	Attempts int       `json:"attempts"`

	// Stopped is when the agent was stopped, Switched when it was started with the other state; zero when the
	// order did not need it.
	Stopped  time.Time `json:"stopped"`
	Switched time.Time `json:"switched"`

	// Deadline ends the phase Trying. Ready is when the node said that it works, as it was confirmed; zero
	// when that is not known.
	Deadline time.Time `json:"deadline"`
	Ready    time.Time `json:"ready"`

	// Failure is why the order was taken back; empty: it was not.
	Failure string `json:"failure,omitempty"`

	// Left is what could not be cleaned up.
	Left string `json:"left,omitempty"`
}

// State is what has the seat when the order is done.
func (r Record) State() State {
	if r.Failure != "" {
		return r.From
	}
	return r.Order.To
}

// Folder is where the two sides meet.
type Folder string

// Path is that of a file in the folder.
func (f Folder) Path(elem ...string) string {
	return filepath.Join(append([]string{string(f)}, elem...)...)
}

// Names of the files.
const (
	orderFile     = "order.json"
	recordFile    = "record.json"
	confirmedFile = "confirmed.json"
	imagesFile    = "images.json"
)

// Order reads the last order; the zero value is none.
func (f Folder) Order() (o Order, err error) { return o, f.read(orderFile, &o) }

// Record reads how far the last order is that the machine has taken; the zero value is none.
func (f Folder) Record() (r Record, err error) { return r, f.read(recordFile, &r) }

// Give gives an order. The last one must be done.
func (f Folder) Give(o Order) error { return f.write(orderFile, o) }

// Confirmation is the pod's word that the node works with what an order has brought.
type Confirmation struct {
	ID    string    `json:"id"`
	Ready time.Time `json:"ready"`
}

// Confirm says that the node works.
func (f Folder) Confirm(c Confirmation) error { return f.write(confirmedFile, c) }

// Images are those that pods of the node had since the drain began.
func (f Folder) Images() (images []string, err error) { return images, f.read(imagesFile, &images) }

// Limits of images: who may make pods names them. What is not among them is pulled.
const (
	maxImages = 1000
	maxName   = 512
)

// imageName is what a runtime takes for the name of an image, and takes no more bytes in a file than it has.
var imageName = regexp.MustCompile(fmt.Sprintf(`^[A-Za-z0-9._:/@+-]{1,%d}$`, maxName))

// AddImages adds to them, within the limits.
func (f Folder) AddImages(more []string) error {
	images, err := f.Images()
	if err != nil {
		return err
	}

	known := len(images)
	for _, image := range more {
		if len(images) == maxImages {
			break
		}
		if imageName.MatchString(image) && !slices.Contains(images, image) {
			images = append(images, image)
		}
	}
	if len(images) == known {
		return nil
	}
	return f.write(imagesFile, images)
}

// DropImages forgets them.
func (f Folder) DropImages() error { return f.remove(imagesFile) }

func (f Folder) remove(name string) error {
	if err := os.Remove(f.Path(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// Forget removes all that is known of orders, while none is under way.
func (f Folder) Forget() error {
	// The record last: an order without one would be carried out.
	for _, name := range []string{imagesFile, confirmedFile, orderFile, recordFile} {
		if err := f.remove(name); err != nil {
			return err
		}
	}
	return nil
}

// Confirmed reports whether an order is confirmed, and since when the node works.
func (f Folder) Confirmed(id string) (ready time.Time, ok bool) {
	var c Confirmation
	err := f.read(confirmedFile, &c)
	return c.Ready, err == nil && c.ID == id
}

// maxFile is more than the files have: an order names the images of a node's pods.
const maxFile = 1 << 20

func (f Folder) read(name string, into any) error {
	data, err := boundedfile.Read(f.Path(name), maxFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = json.Unmarshal(data, into)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", f.Path(name), err)
	}
	return nil
}

func (f Folder) write(name string, what any) error {
	data, err := json.MarshalIndent(what, "", "  ")
	if err != nil {
		return err
	}
	if len(data) >= maxFile {
		return fmt.Errorf("%s: %d bytes, more than %d", f.Path(name), len(data), maxFile)
	}
	if err := os.MkdirAll(string(f), 0o700); err != nil {
		return err
	}
	return durable.WriteFile(f.Path(name), append(data, '\n'), 0o600)
}
