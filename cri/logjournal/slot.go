package logjournal

import (
	"bytes"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"time"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/cri/logfile"
)

// slot is a place for one batch on its way. Header, data and landing are in the shared mapping: what is
// stored there outlives the process, whatever instruction it was killed at.
type slot struct {
	*header
	data []byte // copy of the batch

	// landing is where the batch is read to. Before that it holds the batch's complement, so that each byte
	// says whether it has been read.
	landing []byte

	text []byte // the batch as log lines
	pipe [2]int // private pipe for tee(2); 0 until it is needed
}

// peek copies what the FIFO holds to data and leaves it there.
func (s *slot) peek(fifo int) (int, error) {
	if s.pipe[1] == 0 {
		if err := unix.Pipe2(s.pipe[:], unix.O_NONBLOCK|unix.O_CLOEXEC); err != nil {
			return 0, fmt.Errorf("pipe: %w", err)
		}
	}

	n, err := uninterrupted(func() (int, error) {
		n, err := unix.Tee(fifo, s.pipe[1], batch, unix.SPLICE_F_NONBLOCK)
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
		m, err := uninterrupted(func() (int, error) { return unix.Read(s.pipe[0], s.data[got:n]) })
		if err != nil || m == 0 {
			// What is left in the pipe must not come before the next batch.
			s.closePipe()
			return 0, fmt.Errorf("read batch: %w", err)
		}

		got += m
	}

	s.size = uint32(n)
	return n, nil
}

func (s *slot) closePipe() {
	if s.pipe[1] != 0 {
		unix.Close(s.pipe[0])
		unix.Close(s.pipe[1])
	}
	s.pipe = [2]int{}
}

// write logs the beginning of the n bytes in data, as much as Render takes at once, and makes that the batch.
func (s *slot) write(src *Source, n int) (size int, dropped error) {
	s.text, n = logfile.Render(s.text[:0], s.data[:n], time.Now(), src.Stream, 2*batch)
	s.size = uint32(n)
	s.keyLen = uint32(copy(s.key[:], src.Key))
	s.length = int64(len(s.text))
	subtle.XORBytes(s.landing[:n], s.data[:n], ones[:n])

	dropped = src.Log.Append(s.text, n, func(p logfile.Place) {
		s.place = p
		s.phase.Store(writing)
	})

	s.phase.Store(consuming)
	return n, dropped
}

var ones = bytes.Repeat([]byte{0xff}, batch)

// consume reads the batch, less its first done bytes, out of the FIFO. If the FIFO's last holder is gone, so
// is the batch.
func (s *slot) consume(fifo, done int) error {
	for done < int(s.size) {
		n, err := uninterrupted(func() (int, error) { return unix.Read(fifo, s.landing[done:s.size]) })
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

// recover completes the move that a killed process had begun in this slot, or takes it back.
func (s *slot) recover(resolve Resolve) error {
	phase := s.phase.Load()
	if phase == idle {
		return nil
	}
	if s.keyLen > uint32(len(s.key)) || s.size > batch || phase > consuming {
		return errors.New("log journal has a slot that makes no sense; it is dropped")
	}

	key := string(s.key[:s.keyLen])
	fifo, log, ok := resolve(key)
	if !ok {
		return nil
	}

	if phase == writing {
		complete, err := s.place.Complete(log, s.length)
		if err != nil {
			return fmt.Errorf("recover log of %s: %w", key, err)
		}

		if !complete {
			// Nothing was consumed: the batch is still in the FIFO and is moved like any other.
			return nil
		}
	}

	// The log has the batch. What has been read of it equals the copy, the rest is still the complement.
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

// uninterrupted repeats a call that a signal has interrupted.
func uninterrupted(f func() (int, error)) (int, error) {
	for {
		n, err := f()
		if !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}
