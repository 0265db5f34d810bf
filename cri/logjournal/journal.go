// Package logjournal moves the output of containers from FIFOs to CRI log files so that a kill -9 at any
// instruction neither loses a byte nor writes one twice. The journal is a file on tmpfs that is mapped
// shared: what is stored in it outlives the process. docs/monitor.md describes the steps, "How no line is
// lost or doubled".
package logjournal

import (
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/cri/logfile"
)

// batch is the most that one Move takes.
const batch = 32 << 10

// Journal moves output from FIFOs to logs. It may be used from many goroutines; as many batches are moved at
// once as it has slots.
type Journal struct {
	file  *os.File
	mem   []byte
	slots []*slot
	free  chan *slot
}

// Open opens or makes the journal file, which must be on a filesystem that ends with the boot (tmpfs), with n
// slots. Recover must be called next.
func Open(path string, n int) (*Journal, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open log journal: %w", err)
	}

	if err := allocate(f, int64(n*slotSize)); err != nil {
		f.Close()
		return nil, fmt.Errorf("size log journal: %w", err)
	}

	mem, err := unix.Mmap(int(f.Fd()), 0, n*slotSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("map log journal %s: %w", path, err)
	}

	j := &Journal{file: f, mem: mem, free: make(chan *slot, n)}
	for i := range n {
		j.slots = append(j.slots, slotIn(mem[i*slotSize:(i+1)*slotSize]))
	}

	return j, nil
}

// allocate gives the journal its size and all of its pages. On a file system that has filled up since, a page
// that is missing in the mapping kills the process that stores to it.
func allocate(f *os.File, size int64) error {
	if err := f.Truncate(size); err != nil {
		return err
	}
	if err := unix.Fallocate(int(f.Fd()), 0, 0, size); !errors.Is(err, unix.EOPNOTSUPP) {
		return err
	}
	return nil
}

// Resolve returns the paths of the FIFO and the log of a stream by its Source.Key; ok is false if they are
// gone.
type Resolve func(key string) (fifo, log string, ok bool)

// Recover completes or takes back the moves that a killed process had begun. It returns all problems; none
// keeps the journal from being used.
func (j *Journal) Recover(resolve Resolve) []error {
	var problems []error
	for _, s := range j.slots {
		if err := s.recover(resolve); err != nil {
			problems = append(problems, err)
		}
		s.phase.Store(idle)
		j.free <- s
	}
	return problems
}

// ErrEmpty is returned while the FIFO holds nothing.
var ErrEmpty = errors.New("FIFO is empty")

// Source is one output stream of a container.
type Source struct {
	Key    string        // names the stream in the journal, at most 256 bytes
	Stream string        // "stdout" or "stderr"
	Log    *logfile.File // nil: the output is dropped

	// Tap, if not nil, is called with each batch after it was logged. It must neither block nor keep the
	// slice.
	Tap func([]byte)
}

// Move takes at most one batch from the FIFO, a non-blocking descriptor, into the log. It returns ErrEmpty if
// there is nothing now, and io.EOF if the last writer is gone. An error of the log does not stop the
// container: the batch is dropped, and the error is a *logfile.DropError.
func (j *Journal) Move(fifo int, src *Source) error {
	// Most wake-ups of an empty FIFO end here, without a slot.
	if !readable(fifo) {
		return ErrEmpty
	}

	s := <-j.free
	defer func() { j.free <- s }()

	n, err := s.peek(fifo)
	if err != nil {
		return err
	}

	var dropped error
	if src.Log != nil {
		n, dropped = s.write(src, n)
	}
	if src.Tap != nil {
		src.Tap(s.data[:n])
	}

	if err := s.consume(fifo, 0); err != nil {
		return err
	}

	s.phase.Store(idle)
	return dropped
}

func readable(fifo int) bool {
	fds := []unix.PollFd{{Fd: int32(fifo), Events: unix.POLLIN}}
	n, err := unix.Poll(fds, 0)
	return err != nil || n > 0
}

// Close unmaps and closes the journal.
func (j *Journal) Close() error {
	for _, s := range j.slots {
		s.closePipe()
	}
	return errors.Join(unix.Munmap(j.mem), j.file.Close())
}

// header is the beginning of a slot in the journal file. Its layout is read by later versions of the program.
type header struct {
	phase  atomic.Uint32
	size   uint32 // of the batch in data
	place  logfile.Place
	length int64 // of the batch as log lines
	keyLen uint32
	key    [256]byte
}

// Phases of a slot. Each is stored after what it says is done.
const (
	idle      = iota
	writing   // the batch in data is being written to the log at place; the FIFO still holds it
	consuming // the log has all of it; it is being read out of the FIFO into landing
)

const (
	headerSize = 4096
	slotSize   = headerSize + 2*batch
)

// slotIn lays a slot over its part of the journal file.
func slotIn(part []byte) *slot {
	return &slot{
		header:  (*header)(unsafe.Pointer(&part[0])),
		data:    part[headerSize : headerSize+batch],
		landing: part[headerSize+batch:],
	}
}
