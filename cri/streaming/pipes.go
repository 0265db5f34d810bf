package streaming

import (
	"errors"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// pipes connect a client with a process, by one pipe for each stream.
type pipes struct {
	// theirs are the ends of the process, ours the other ones.
	theirs, ours []*os.File

	outputs []pipedOutput
	copied  sync.WaitGroup
}

type pipedOutput struct {
	from *os.File
	to   io.Writer
}

// input returns the end that the process reads what from gives; nil if from is nil.
func (p *pipes) input(from io.Reader) (*os.File, error) {
	if from == nil {
		return nil, nil
	}

	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}

	p.theirs = append(p.theirs, r)
	p.ours = append(p.ours, w)

	// It ends when the process reads no more or the client sends no more.
	go func() {
		_, _ = io.Copy(w, from)
		w.Close()
	}()

	return r, nil
}

// output returns the end to which the process writes what to gets; nil if to is nil.
func (p *pipes) output(to io.Writer) (*os.File, error) {
	if to == nil {
		return nil, nil
	}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	p.theirs = append(p.theirs, w)
	p.ours = append(p.ours, r)
	p.outputs = append(p.outputs, pipedOutput{from: r, to: to})
	return w, nil
}

// start copies output, once the process has its ends.
func (p *pipes) start() {
	closeAll(p.theirs)
	for _, o := range p.outputs {
		p.copied.Go(func() {
			// It fails when the client is gone, which is a broken pipe to the process.
			_, _ = io.Copy(o.to, &processOutput{f: o.from})
			o.from.Close()
		})
	}
}

// finish waits for the last output of a process that has ended.
func (p *pipes) finish() {
	for _, o := range p.outputs {
		limitOutput(o.from)
	}
	p.copied.Wait()
}

// close closes all ends. Those that are closed already are no error.
func (p *pipes) close() {
	closeAll(p.theirs)
	closeAll(p.ours)
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}

// outputGrace is how long output is waited for after the process has ended. All that it wrote is in the pipe
// or terminal by then, but a process that it left behind may hold that open without end.
const outputGrace = 100 * time.Millisecond

// processOutput reads a process's pipe or terminal. After limitOutput it gives what is there when the grace
// period is over, however slowly that is read, and then io.EOF.
type processOutput struct {
	f *os.File

	// over is true once the grace period is over; left are the bytes to be read after that.
	over bool
	left int
}

// limitOutput starts the grace period of a file that a processOutput reads, when the process has ended. One
// that is closed already has no reader left.
func limitOutput(f *os.File) { _ = f.SetReadDeadline(time.Now().Add(outputGrace)) }

// Read reads output, and io.EOF at its end.
func (o *processOutput) Read(p []byte) (n int, err error) {
	if !o.over {
		if n, err = o.f.Read(p); !errors.Is(err, os.ErrDeadlineExceeded) {
			return n, err
		}
	}

	// A file past its deadline reads nothing, though there may be something: so the descriptor is read, which
	// is non-blocking.
	raw, err := o.f.SyscallConn()
	if err != nil {
		return 0, io.EOF
	}

	controlErr := raw.Control(func(fd uintptr) {
		if !o.over {
			o.over = true
			o.left, _ = unix.IoctlGetInt(int(fd), unix.TIOCINQ)
		}

		n, err = unix.Read(int(fd), p[:min(len(p), o.left)])
	})
	if controlErr != nil || err != nil || n <= 0 {
		return 0, io.EOF
	}

	o.left -= n
	return n, nil
}
