package logjournal

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/cri/logfile"
)

// rig is a journal, a FIFO with both ends open, and a log.
type rig struct {
	dir     string
	journal *Journal
	r, w    int
	source  Source
}

func newRig(t *testing.T) *rig {
	t.Helper()
	g := &rig{dir: t.TempDir()}
	fifo := filepath.Join(g.dir, "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}

	g.r = openFIFO(t, fifo, unix.O_RDONLY|unix.O_NONBLOCK)
	g.w = openFIFO(t, fifo, unix.O_WRONLY)
	log, err := logfile.Open(filepath.Join(g.dir, "logs", "0.log"))
	if err != nil {
		t.Fatal(err)
	}

	t.Cleanup(func() { log.Close() })
	g.source = Source{Key: "c/out", Stream: "stdout", Log: log}
	g.open(t)
	return g
}

func openFIFO(t *testing.T, path string, flags int) int {
	t.Helper()
	fd, err := unix.Open(path, flags|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

// open opens the journal as a successor process would.
func (g *rig) open(t *testing.T) {
	t.Helper()
	j, err := Open(filepath.Join(g.dir, "journal"), 2)
	if err != nil {
		t.Fatal(err)
	}

	t.Cleanup(func() { j.Close() })
	g.journal = j
	problems := j.Recover(func(key string) (string, string, bool) {
		return filepath.Join(g.dir, "fifo"), g.source.Log.Path(), key == g.source.Key
	})
	if len(problems) > 0 {
		t.Fatal(errors.Join(problems...))
	}
}

func (g *rig) write(t *testing.T, text string) {
	t.Helper()
	if _, err := unix.Write(g.w, []byte(text)); err != nil {
		t.Fatal(err)
	}
}

// drain moves all that is in the FIFO and returns the content of the log without times.
func (g *rig) drain(t *testing.T) string {
	t.Helper()
	for {
		err := g.journal.Move(g.r, &g.source)
		if errors.Is(err, ErrEmpty) {
			return withoutTimes(t, g.source.Log.Path())
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// withoutTimes returns the lines of a log from their tags on.
func withoutTimes(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}

	var out strings.Builder
	for line := range strings.Lines(string(data)) {
		_, rest, ok := strings.Cut(line, " stdout ")
		if !ok {
			t.Fatalf("malformed line %q", line)
		}

		out.WriteString(rest)
	}

	return out.String()
}

func TestOutputEndsWithTheLastWriter(t *testing.T) {
	g := newRig(t)
	g.write(t, "a\nb")
	if got := g.drain(t); got != "F a\nP b\n" {
		t.Errorf("log %q", got)
	}

	unix.Close(g.w)
	if err := g.journal.Move(g.r, &g.source); !errors.Is(err, io.EOF) {
		t.Errorf("got %v, want io.EOF", err)
	}

	// The cleanup closes it.
	g.w = openFIFO(t, filepath.Join(g.dir, "fifo"), unix.O_WRONLY)
}

// kill is an instant at which a process was killed while it moved a batch: the phase that the journal holds,
// and what the process had done by then.
type kill struct {
	name   string
	phase  uint32
	logged float64 // share of the batch's lines in the log
	read   int     // bytes of the batch read out of the FIFO
}

// play does in a slot what a process does until it is killed.
func (k kill) play(t *testing.T, g *rig, n int) {
	t.Helper()
	s := <-g.journal.free
	if _, err := s.peek(g.r); err != nil {
		t.Fatal(err)
	}
	if _, err := s.write(&g.source, n); err != nil {
		t.Fatal(err)
	}

	s.phase.Store(k.phase)
	size := s.place.Start + int64(float64(s.length)*k.logged)
	if err := os.Truncate(g.source.Log.Path(), size); err != nil {
		t.Fatal(err)
	}

	if k.read > 0 {
		if got, err := unix.Read(g.r, s.landing[:k.read]); got != k.read {
			t.Fatal(got, err)
		}
	}
}

func TestAKillAtAnyInstantNeitherLosesNorDoublesALine(t *testing.T) {
	const text = "one\ntwo\nthree\n"
	for _, k := range []kill{
		{"before the write", writing, 0, 0},
		{"during the write", writing, 0.6, 0},
		{"after the write", writing, 1, 0},
		{"before the read", consuming, 1, 0},
		{"during the read", consuming, 1, 5},
		{"after the read", consuming, 1, len(text)},
	} {
		for _, rotated := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, rotated %v", k.name, rotated), func(t *testing.T) {
				g := newRig(t)
				g.write(t, "zero\n")
				g.drain(t)
				g.write(t, text)
				k.play(t, g, len(text))
				g.write(t, "four\n")

				old := g.source.Log.Path() + ".1"
				if rotated {
					if err := os.Rename(g.source.Log.Path(), old); err != nil {
						t.Fatal(err)
					}
				}

				g.open(t)
				if err := g.source.Log.Reopen(); err != nil {
					t.Fatal(err)
				}

				got := g.drain(t)
				if rotated {
					got = withoutTimes(t, old) + got
				}
				if want := "F zero\nF one\nF two\nF three\nF four\n"; got != want {
					t.Errorf("got %q\nwant %q", got, want)
				}
			})
		}
	}
}

func TestASlotThatMakesNoSenseIsReportedAndTheJournalWorks(t *testing.T) {
	g := newRig(t)
	s := <-g.journal.free
	s.size = batch + 1
	s.phase.Store(consuming)

	j, err := Open(filepath.Join(g.dir, "journal"), 2)
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()

	problems := j.Recover(func(string) (string, string, bool) { return "", "", false })
	if len(problems) != 1 {
		t.Errorf("problems %v, want one", problems)
	}

	g.write(t, "a\n")
	g.journal = j
	if got := g.drain(t); got != "F a\n" {
		t.Errorf("log %q", got)
	}
}

func TestAFullDiskDropsOutputAndTheContainerGoesOn(t *testing.T) {
	g := newRig(t)
	path := g.source.Log.Path()
	if err := errors.Join(os.Remove(path), os.Symlink("/dev/full", path), g.source.Log.Reopen()); err != nil {
		t.Fatal(err)
	}

	g.write(t, "lost\n")
	err := g.journal.Move(g.r, &g.source)
	drop, ok := errors.AsType[*logfile.DropError](err)
	if !ok || !drop.First || drop.Bytes != 5 || !errors.Is(err, unix.ENOSPC) {
		t.Errorf("got %v (%+v)", err, drop)
	}

	if err := errors.Join(os.Remove(path), g.source.Log.Reopen()); err != nil {
		t.Fatal(err)
	}

	g.write(t, "kept\n")
	if got := g.drain(t); got != "F kept\n" {
		t.Errorf("log %q", got)
	}
}

func BenchmarkMove(b *testing.B) {
	dir := b.TempDir()
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_NONBLOCK|unix.O_CLOEXEC); err != nil {
		b.Fatal(err)
	}

	log, err := logfile.Open(filepath.Join(dir, "log"))
	if err != nil {
		b.Fatal(err)
	}
	defer log.Close()

	j, err := Open(filepath.Join(dir, "journal"), 1)
	if err != nil {
		b.Fatal(err)
	}
	defer j.Close()

	j.Recover(nil)
	batch := bytes.Repeat(
		[]byte("a line of output as programs write them, of eighty bytes less one for newline.\n"),
		400,
	)

	b.SetBytes(int64(len(batch)))
	src := Source{Key: "k", Stream: "stdout", Log: log}
	for b.Loop() {
		if _, err := unix.Write(p[1], batch); err != nil {
			b.Fatal(err)
		}
		if err := j.Move(p[0], &src); err != nil {
			b.Fatal(err)
		}

		os.Truncate(log.Path(), 0)
	}
}
