package logfile

import (
	"bytes"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"os"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Batch is the most that one Move takes.
const Batch = 32 << 10

// Phases of a slot. They are the journal: each is stored after what it promises is done.
const (
	idle      = iota
	writing   // the batch in data is being written to the log at start; the FIFO still holds it
	consuming // the log has all of it; it is being read out of the FIFO into landing
)

// header is the beginning of a slot in the journal file.
type header struct {
	phase  uint32
	size   uint32 // of the batch in data
	dev    uint64 // the log file
	ino    uint64
	start  int64 // its size before the batch
	length int64 // of the batch as log lines
	keyLen uint32
	key    [256]byte
}

const headerSize = 4096

// slot is a place for one batch on its way. Header, data and landing are in a shared file mapping: what is
// stored there survives the death of the process, whatever instruction it was at.
type slot struct {
	*header
	data []byte // copy of the batch
	// where the batch is read to; before that, its complement: so what has been read can be told from what
	// has not
	landing []byte
	text    []byte // the batch as log lines
	scratch [2]int // private pipe for tee(2)
}

// Journal moves output from FIFOs to logs. It may be used from many goroutines; as many batches are moved at
// once as it has slots.
type Journal struct {
	file  *os.File
	mem   []byte
	slots []*slot
	free  chan *slot
}

// OpenJournal opens or makes the journal file, which must be on a file system of this boot (tmpfs), with n
// slots. Recover must be called next.
func OpenJournal(path string, n int) (*Journal, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open log journal: %w", err)
	}

	const slotSize = headerSize + 2*Batch
	if err := f.Truncate(int64(n * slotSize)); err != nil {
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
		part := mem[i*slotSize : (i+1)*slotSize]
		s := &slot{
			header:  (*header)(unsafe.Pointer(&part[0])),
			data:    part[headerSize : headerSize+Batch],
			landing: part[headerSize+Batch:],
		}

		j.slots = append(j.slots, s)
	}

	return j, nil
}

// Recover finishes or takes back what a killed process had begun. resolve tells the FIFO and the log path of
// a key; ok is false if they are gone. Every problem is returned, and none stops the journal from being used.
func (j *Journal) Recover(resolve func(key string) (fifo, log string, ok bool)) []error {
	var problems []error
	for _, s := range j.slots {
		if err := s.recover(resolve); err != nil {
			problems = append(problems, err)
		}
		atomic.StoreUint32(&s.phase, idle)
		j.free <- s
	}
	return problems
}

func (s *slot) recover(resolve func(key string) (fifo, log string, ok bool)) error {
	phase := atomic.LoadUint32(&s.phase)
	if phase == idle {
		return nil
	}
	if s.keyLen > uint32(len(s.key)) || s.size > Batch || phase > consuming {
		return errors.New("log journal has a slot that makes no sense; it is dropped")
	}

	key := string(s.key[:s.keyLen])
	fifo, log, ok := resolve(key)
	if !ok {
		return nil
	}

	if phase == writing {
		complete, err := s.written(log)
		if err != nil {
			return fmt.Errorf("recover log of %s: %w", key, err)
		}

		// nothing was consumed: the batch is still in the FIFO and is moved anew
		if !complete {
			return nil
		}
	}

	done := 0
	for done < int(s.size) && s.landing[done] == s.data[done] {
		done++
	}

	fd, err := unix.Open(fifo, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("recover output of %s: open %s: %w", key, fifo, err)
	}
	defer unix.Close(fd)

	return s.consume(fd, done)
}

// written reports whether the log holds the whole batch; a torn one is cut off.
func (s *slot) written(path string) (bool, error) {
	p := place{dev: s.dev, ino: s.ino, start: s.start}
	f, err := p.find(path)
	if errors.Is(err, os.ErrNotExist) {
		// the log was removed; what it had of the batch is gone with it
		return false, nil
	}

	if err != nil {
		return false, err
	}
	defer f.Close()

	st, err := f.Stat()
	if err != nil {
		return false, err
	}
	if st.Size() >= s.start+s.length {
		return true, nil
	}
	if st.Size() > s.start {
		return false, f.Truncate(s.start)
	}

	return false, nil
}

// ErrEmpty says that the FIFO holds nothing now.
var ErrEmpty = errors.New("FIFO is empty")

// Source is one output stream of a container.
type Source struct {
	Key    string // names it in the journal, at most 256 bytes
	Stream string // stdout or stderr
	Log    *File  // nil: the output is dropped
	// Tap sees each batch after it was logged. It must not block and not keep the slice.
	Tap func([]byte)
}

// Move takes at most one batch from the FIFO (non-blocking) into the log. ErrEmpty if there is nothing now,
// io.EOF if there will never be. A write error of the log does not stop the container: the batch is dropped
// and the error is returned as a *DropError.
func (j *Journal) Move(fifo int, src *Source) error {
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

	atomic.StoreUint32(&s.phase, idle)
	return dropped
}

// readable spares idle streams the journal: most wake-ups of an empty FIFO end here.
func readable(fifo int) bool {
	fds := []unix.PollFd{{Fd: int32(fifo), Events: unix.POLLIN}}
	n, err := unix.Poll(fds, 0)
	return err != nil || n > 0
}

// peek copies what the FIFO holds to data and leaves it there.
func (s *slot) peek(fifo int) (int, error) {
	if s.scratch[1] == 0 {
		if err := unix.Pipe2(s.scratch[:], unix.O_NONBLOCK|unix.O_CLOEXEC); err != nil {
			return 0, fmt.Errorf("pipe: %w", err)
		}
	}

	n, err := retry(func() (int, error) {
		n, err := unix.Tee(fifo, s.scratch[1], Batch, unix.SPLICE_F_NONBLOCK)
		return int(n), err
	})

	switch {
	case errors.Is(err, unix.EAGAIN):
		return 0, ErrEmpty
	case err != nil:
		return 0, fmt.Errorf("tee: %w", err)
	case n == 0:
		return 0, io.EOF
	}

	for got := 0; got < n; {
		m, err := retry(func() (int, error) { return unix.Read(s.scratch[0], s.data[got:n]) })
		if err != nil || m == 0 {
			// whatever is left in it must not come before the next batch
			unix.Close(s.scratch[0])
			unix.Close(s.scratch[1])
			s.scratch = [2]int{}
			return 0, fmt.Errorf("read batch: %w", err)
		}

		got += m
	}

	s.size = uint32(n)
	return n, nil
}

// write writes the beginning of the batch, as much as Render takes at once, and makes that the batch.
func (s *slot) write(src *Source, n int) (size int, dropped error) {
	prefix := time.Now().AppendFormat(make([]byte, 0, 64), TimeFormat)
	prefix = append(append(append(prefix, ' '), src.Stream...), ' ')
	s.text, n = Render(s.text[:0], s.data[:n], prefix, 2*Batch)
	s.size = uint32(n)
	s.keyLen = uint32(copy(s.key[:], src.Key))
	s.length = int64(len(s.text))
	subtle.XORBytes(s.landing[:n], s.data[:n], ones[:n])

	l := src.Log
	l.mu.Lock()
	defer l.mu.Unlock()

	p, err := l.place()
	if err == nil {
		s.dev, s.ino, s.start = p.dev, p.ino, p.start
		atomic.StoreUint32(&s.phase, writing)
		if _, err = l.f.Write(s.text); err != nil {
			// half a line would spoil the next one
			err = errors.Join(err, l.f.Truncate(p.start))
		}
	}

	atomic.StoreUint32(&s.phase, consuming)
	if err != nil {
		first := l.dropped == 0
		l.dropped += int64(n)
		return n, &DropError{Bytes: l.dropped, First: first, Err: err}
	}

	l.dropped = 0
	return n, nil
}

var ones = bytes.Repeat([]byte{0xff}, Batch)

// consume reads the batch, less its first done bytes, out of the FIFO. If the FIFO's last holder is gone, so
// is the batch.
func (s *slot) consume(fifo, done int) error {
	for done < int(s.size) {
		n, err := retry(func() (int, error) { return unix.Read(fifo, s.landing[done:s.size]) })
		if errors.Is(err, unix.EAGAIN) || err == nil && n == 0 {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read FIFO: %w", err)
		}
		done += n
	}
	return nil
}

// retry repeats an interrupted call.
func retry(f func() (int, error)) (int, error) {
	for {
		n, err := f()
		if !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}

// DropError says that output was lost because the log could not be written.
type DropError struct {
	Bytes int64 // since the last good write
	First bool  // no earlier loss since the last good write: the time to tell someone
	Err   error
}

func (e *DropError) Error() string { return fmt.Sprintf("output dropped: %v", e.Err) }
func (e *DropError) Unwrap() error { return e.Err }

// Close gives the journal up.
func (j *Journal) Close() error {
	for _, s := range j.slots {
		if s.scratch[1] != 0 {
			unix.Close(s.scratch[0])
			unix.Close(s.scratch[1])
		}
	}
	return errors.Join(unix.Munmap(j.mem), j.file.Close())
}
