package streaming

import (
	"bytes"
	"os"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

func TestOutputOfAllExecSyncsTogetherIsBounded(t *testing.T) {
	var all budget
	const limit = 100 << 10
	all.left.Store(limit)

	var captures []*capture
	var writers sync.WaitGroup
	for range 5 {
		var own budget
		own.left.Store(30 << 10)
		c, err := newCapture(&own, &all)
		if err != nil {
			t.Fatal(err)
		}

		captures = append(captures, c)
		writer := c.write
		if c.write, err = reopened(writer); err != nil {
			t.Fatal(err)
		}

		// as a process does that nobody stops
		writers.Go(func() {
			writer.Write(bytes.Repeat([]byte("x"), 1<<20))
			writer.Close()
		})

		c.start()
	}

	// all of it was read
	writers.Wait()

	kept := 0
	for _, c := range captures {
		n := len(c.finish())
		if n > 30<<10 {
			t.Errorf("one keeps %d bytes", n)
		}

		kept += n
	}

	if kept != limit {
		t.Errorf("all keep %d bytes, want %d", kept, limit)
	}

	for _, c := range captures {
		c.close()
	}

	if left := all.left.Load(); left != limit {
		t.Errorf("%d bytes are free at the end, want %d", left, limit)
	}
}

// reopened is a second descriptor of a file.
func reopened(f *os.File) (*os.File, error) {
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 3)
	return os.NewFile(uintptr(fd), "copy"), err
}
