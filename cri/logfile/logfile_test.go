package logfile

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"
)

const prefix = "2026-01-02T03:04:05.000000006Z stdout "

func TestRender(t *testing.T) {
	long := strings.Repeat("x", MaxLine)
	for _, c := range []struct {
		name, data, want string
		consumed         int
	}{
		{"nothing", "", "", 0},
		{"lines", "a\n\nb\n", prefix + "F a\n" + prefix + "F \n" + prefix + "F b\n", 5},
		{"an unfinished line alone is partial", "ab", prefix + "P ab\n", 2},
		{"an unfinished line after others waits", "a\nb", prefix + "F a\n", 2},
		{"a line of the greatest length is whole", long + "\n", prefix + "F " + long + "\n", MaxLine + 1},
		{"a longer one is split", long + "y\n", prefix + "P " + long + "\n" + prefix + "F y\n", MaxLine + 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, n := Render(nil, []byte(c.data), []byte(prefix), 1<<20)
			if string(got) != c.want || n != c.consumed {
				t.Errorf("consumed %d, want %d; got %q", n, c.consumed, got)
			}
		})
	}
}

// plain takes log lines apart again.
func plain(t *testing.T, log []byte) []byte {
	t.Helper()
	var out []byte
	for line := range bytes.Lines(log) {
		rest, ok := bytes.CutPrefix(line, []byte(prefix))
		if !ok || len(rest) < 3 || rest[1] != ' ' || len(rest) > MaxLine+3 {
			t.Fatalf("malformed line %q", line)
		}

		switch content := rest[2:]; rest[0] {
		case 'F':
			out = append(out, content...)
		case 'P':
			out = append(out, content[:len(content)-1]...)
		default:
			t.Fatalf("malformed line %q", line)
		}
	}

	return out
}

func FuzzRender(f *testing.F) {
	f.Add([]byte("a\nb"), 10)
	f.Add([]byte(strings.Repeat("z", 2*MaxLine)+"\n\n"), 1)
	f.Fuzz(func(t *testing.T, data []byte, limit int) {
		var log []byte
		for rest := data; len(rest) > 0; {
			out, n := Render(nil, rest, []byte(prefix), max(1, limit))
			if n == 0 || n > len(rest) {
				t.Fatalf("consumed %d of %d bytes", n, len(rest))
			}

			log, rest = append(log, out...), rest[n:]
		}

		if got := plain(t, log); !bytes.Equal(got, data) {
			t.Fatalf("%q became %q", data, got)
		}
	})
}

// rig is a journal, a FIFO with both ends open, and a log.
type rig struct {
	dir    string
	j      *Journal
	r, w   int
	source Source
}

func newRig(t *testing.T) *rig {
	t.Helper()
	g := &rig{dir: t.TempDir()}
	fifo := filepath.Join(g.dir, "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}

	g.r, g.w = open3(t, fifo, unix.O_RDONLY|unix.O_NONBLOCK), open3(t, fifo, unix.O_WRONLY)
	log, err := Open(filepath.Join(g.dir, "logs", "0.log"))
	if err != nil {
		t.Fatal(err)
	}

	t.Cleanup(func() { log.Close() })
	g.source = Source{Key: "c/out", Stream: "stdout", Log: log}
	g.open(t)
	return g
}

func open3(t *testing.T, path string, flags int) int {
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
	j, err := OpenJournal(filepath.Join(g.dir, "journal"), 2)
	if err != nil {
		t.Fatal(err)
	}

	t.Cleanup(func() { j.Close() })
	g.j = j
	problems := j.Recover(func(key string) (string, string, bool) {
		return filepath.Join(g.dir, "fifo"), g.source.Log.path, key == g.source.Key
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

// drain moves all and returns the content of the log without times.
func (g *rig) drain(t *testing.T) string {
	t.Helper()
	for {
		if err := g.j.Move(g.r, &g.source); errors.Is(err, ErrEmpty) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}

	data, err := os.ReadFile(g.source.Log.path)
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

func TestMoveEndsWithTheLastWriter(t *testing.T) {
	g := newRig(t)
	g.write(t, "a\nb")
	if got := g.drain(t); got != "F a\nP b\n" {
		t.Errorf("log %q", got)
	}

	unix.Close(g.w)
	if err := g.j.Move(g.r, &g.source); !errors.Is(err, io.EOF) {
		t.Errorf("got %v, want io.EOF", err)
	}

	// for the cleanup's close
	g.w = open3(t, filepath.Join(g.dir, "fifo"), unix.O_WRONLY)
}

// TestRecover plays a kill at each phase: the journal holds what the killed process had stored, FIFO and log
// what it had done.
func TestRecover(t *testing.T) {
	const text = "one\ntwo\nthree\n"
	for _, c := range []struct {
		name     string
		phase    uint32
		logged   float64 // share of the batch's lines in the log
		consumed int     // bytes of the batch read out of the FIFO
	}{
		{"before the write", writing, 0, 0},
		{"in the midst of the write", writing, 0.6, 0},
		{"after the write", writing, 1, 0},
		{"before the read", consuming, 1, 0},
		{"in the midst of the read", consuming, 1, 5},
		{"after the read", consuming, 1, len(text)},
	} {
		for _, rotated := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, rotated %v", c.name, rotated), func(t *testing.T) {
				g := newRig(t)
				g.write(t, "zero\n")
				g.drain(t)
				g.write(t, text)
				s := <-g.j.free
				if _, err := s.peek(g.r); err != nil {
					t.Fatal(err)
				}
				if _, err := s.write(&g.source, len(text)); err != nil {
					t.Fatal(err)
				}

				atomic.StoreUint32(&s.phase, c.phase)
				if err := g.source.Log.f.Truncate(s.start + int64(float64(s.length)*c.logged)); err != nil {
					t.Fatal(err)
				}

				if c.consumed > 0 {
					if n, err := unix.Read(g.r, s.landing[:c.consumed]); n != c.consumed {
						t.Fatal(n, err)
					}
				}

				g.write(t, "four\n")
				path := g.source.Log.path
				var before []byte
				if rotated {
					if err := os.Rename(path, path+".1"); err != nil {
						t.Fatal(err)
					}
				}

				g.open(t)
				if rotated {
					if err := g.source.Log.Reopen(); err != nil {
						t.Fatal(err)
					}
				}

				got := g.drain(t)
				if rotated {
					before, _ = os.ReadFile(path + ".1")
					var old strings.Builder
					for line := range strings.Lines(string(before)) {
						_, rest, _ := strings.Cut(line, " stdout ")
						old.WriteString(rest)
					}

					got = old.String() + got
				}

				if want := "F zero\nF one\nF two\nF three\nF four\n"; got != want {
					t.Errorf("got %q\nwant %q", got, want)
				}
			})
		}
	}
}

func TestFullDiskDropsAndGoesOn(t *testing.T) {
	g := newRig(t)
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Skip(err)
	}

	good := g.source.Log.f
	g.source.Log.f = full
	g.write(t, "lost\n")
	err = g.j.Move(g.r, &g.source)
	drop, ok := errors.AsType[*DropError](err)
	if !ok || !drop.First || drop.Bytes != 5 || !errors.Is(err, unix.ENOSPC) {
		t.Errorf("got %v (%+v)", err, drop)
	}

	g.source.Log.f = good
	full.Close()
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

	log, err := Open(filepath.Join(dir, "log"))
	if err != nil {
		b.Fatal(err)
	}
	defer log.Close()

	j, err := OpenJournal(filepath.Join(dir, "journal"), 1)
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

		log.f.Truncate(0)
	}
}
