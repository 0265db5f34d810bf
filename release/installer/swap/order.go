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

	// Given is when it was given.
	Given time.Time `json:"given"`

	To State `json:"to"`

	// Version is that of the program which gave the order, for people.
	Version string `json:"version"`

	// Trial is how long the node may take from when it was switched until it is confirmed that it works.
	Trial time.Duration `json:"trial"`

	// Prove is how long one process has to have run then; zero: usualProof.
	Prove time.Duration `json:"prove,omitempty"`

	// Images are those of the node's pods, which the next runtime should have, too.
	Images []string `json:"images,omitempty"`

	// Pods are the UIDs of those that stay on the node and were Ready.
	Pods []string `json:"pods,omitempty"`
}

// usualProof is what an order has that says nothing of it.
const usualProof = 45 * time.Second

// proof is how long one process has to have run before the order is settled: one that ends and is started
// again may look well at a glance.
func (o Order) proof() time.Duration {
	if o.Prove > 0 {
		return o.Prove
	}
	return usualProof
}

// Phase is how far an order is.
type Phase string

// The phases. An order ends well by Switching, Trying, Proving, Settling; it is taken back by Reverting, from
// Proving by Retreating. The machine waits for the pod in Trying, Proving and Retreating.
const (
	// Switching arranges what is ordered.
	Switching Phase = "switching"

	// Trying waits for the pod's word that the node works. The node is out of use.
	Trying Phase = "trying"

	// Proving waits until one process has lived for long enough, and for the pod's word that the node lives.
	// The node is in use.
	Proving Phase = "proving"

	// Settling takes away what is not needed any more.
	Settling Phase = "settling"

	// Retreating waits until the node is out of use again.
	Retreating Phase = "retreating"

	// Reverting arranges what was there before.
	Reverting Phase = "reverting"

	Done Phase = "done"
)

// Record is what the machine has done.
type Record struct {
	Order Order `json:"order"`

	// From is what had the seat when the order was taken.
	From State `json:"from"`

	Phase Phase `json:"phase"`

	// Taken is when the machine took the order. Attempts counts the starts of the phase, of Switching and of
	// Proving.
	Taken    time.Time `json:"taken"`
	Attempts int       `json:"attempts"`

	// Stopped is when the agent was stopped; zero: it has run on. Switched is when it was started with the
	// other state: in a later second than the one in which the agent before has ended, so that a status with
	// that second, or a later one, is of the agent that was started.
	Stopped  time.Time `json:"stopped"`
	Switched time.Time `json:"switched"`

	// Deadline ends the phase. Ready is when the node said that it works, as the pod has it; zero when that
	// is not known.
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
	orderFile  = "order.json"
	recordFile = "record.json"
	wordFile   = "word.json"

	// confirmedFile is for a program of the version before (see confirmation).
	confirmedFile = "confirmed.json"

	imagesFile = "images.json"
)

// Order reads the last order; the zero value is none.
func (f Folder) Order() (o Order, err error) { return o, f.read(orderFile, &o) }

// Record reads how far the last order is that the machine has taken; the zero value is none.
func (f Folder) Record() (r Record, err error) { return r, f.read(recordFile, &r) }

// Give gives an order. The last one must be done.
func (f Folder) Give(o Order) error { return f.write(orderFile, o) }

// Withdraw takes the last order back, which no machine has begun with or will: the one before it is the last.
func (f Folder) Withdraw() error {
	record, err := f.Record()
	if err != nil {
		return err
	}
	if record.Order.ID == "" {
		return f.remove(orderFile)
	}
	return f.Give(record.Order)
}

// Word is what the pod says of an order.
type Word struct {
	// ID is the order's.
	ID string `json:"id"`

	// Works says that the node works with what the order has brought, Ready since when, and Doubt why that is
	// not said.
	Works bool      `json:"works"`
	Ready time.Time `json:"ready"`
	Doubt string    `json:"doubt,omitempty"`

	// Alive is the last sign of life of the node's agent while the node was Ready and in use: by the node's
	// own clock, as all times here.
	Alive time.Time `json:"alive,omitzero"`

	// Drained says that the node is out of use again.
	Drained bool `json:"drained,omitempty"`
}

// Say says something of an order, in place of what was said before.
func (f Folder) Say(w Word) error {
	if w.Works && w.Alive.IsZero() {
		if err := f.write(confirmedFile, confirmation{w.ID, w.Ready}); err != nil {
			return err
		}
	}
	return f.write(wordFile, w)
}

// confirmation is the word that a node works as the machine's program of the version before reads it, which
// may wait for that while the pod is of this version already. The next version need not write it.
type confirmation struct {
	ID    string    `json:"id"`
	Ready time.Time `json:"ready"`
}

// Word is what was said last of an order; the zero value: nothing.
func (f Folder) Word(id string) (w Word) {
	if err := f.read(wordFile, &w); err != nil || w.ID != id {
		return Word{}
	}
	return w
}

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
	for _, name := range []string{imagesFile, confirmedFile, wordFile, orderFile, recordFile} {
		if err := f.remove(name); err != nil {
			return err
		}
	}
	return nil
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
