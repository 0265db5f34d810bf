package streaming

import (
	"io"
	"os"
	"sync"
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
		io.Copy(w, from)
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
			io.Copy(o.to, &processOutput{f: o.from})
			// To the process, a client that is gone is a broken pipe.
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
