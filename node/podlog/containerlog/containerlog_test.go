package containerlog_test

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/trivet-node/trivet/node/podlog/containerlog"
)

func line(second int, stream, tag, text string) string {
	return fmt.Sprintf("2026-01-02T03:04:%02d.5Z %s %s %s\n", second, stream, tag, text)
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, path string, o containerlog.Options) string {
	t.Helper()
	var out bytes.Buffer
	if err := containerlog.Read(t.Context(), path, o, &out); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func TestOptionsSelectWhatIsRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "0.log")
	write(t, path, line(1, "stdout", "F", "one")+
		line(2, "stderr", "P", "tw")+
		line(2, "stderr", "F", "o")+
		"torn\n"+
		line(3, "stdout", "F", ""))

	for name, c := range map[string]struct {
		o    containerlog.Options
		want string
	}{
		"all":    {containerlog.Options{Tail: -1}, "one\ntwo\n\n"},
		"none":   {containerlog.Options{Tail: 0}, ""},
		"tail 1": {containerlog.Options{Tail: 1}, "\n"},
		// The torn line counts.
		"tail 3":  {containerlog.Options{Tail: 3}, "two\n\n"},
		"tail 99": {containerlog.Options{Tail: 99}, "one\ntwo\n\n"},
		"stderr":  {containerlog.Options{Tail: -1, Stream: "stderr"}, "two\n"},
		"since": {
			containerlog.Options{Tail: -1, Since: time.Date(2026, 1, 2, 3, 4, 3, 0, time.UTC)},
			"\n",
		},
		"limit": {containerlog.Options{Tail: -1, LimitBytes: 6}, "one\ntw"},
		"timestamps": {
			containerlog.Options{Tail: 3, Timestamps: true},
			"2026-01-02T03:04:02.500000000Z two\n2026-01-02T03:04:03.500000000Z \n",
		},
	} {
		if got := read(t, path, c.o); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

func TestRotatedFilesBelongToTheLog(t *testing.T) {
	path := filepath.Join(t.TempDir(), "0.log")
	var z bytes.Buffer
	w := gzip.NewWriter(&z)
	_, _ = w.Write([]byte(line(1, "stdout", "F", "1") + line(2, "stdout", "F", "2")))
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}

	write(t, path+".20260101-000000.gz", z.String())
	write(t, path+".20260102-000000", line(3, "stdout", "F", "3"))
	write(t, path, line(4, "stdout", "F", "4"))
	write(t, path+".tmp", "not a log")
	if got := read(t, path, containerlog.Options{Tail: -1}); got != "1\n2\n3\n4\n" {
		t.Errorf("all: %q", got)
	}

	for tail, want := range map[int64]string{1: "4\n", 2: "3\n4\n", 3: "2\n3\n4\n", 9: "1\n2\n3\n4\n"} {
		if got := read(t, path, containerlog.Options{Tail: tail}); got != want {
			t.Errorf("tail %d: %q, want %q", tail, got, want)
		}
	}
}

// TestTailFindsTheLineOverChunks makes a log larger than what is read at a time, with lines of all lengths.
func TestTailFindsTheLineOverChunks(t *testing.T) {
	path := filepath.Join(t.TempDir(), "0.log")
	var text strings.Builder
	var want []string
	for i := range 3000 {
		s := strings.Repeat("x", i%200) + fmt.Sprint(i)
		want = append(want, s+"\n")
		text.WriteString(line(i%60, "stdout", "F", s))
	}

	write(t, path, text.String())
	for _, n := range []int{1, 2, 700, 1500, 2999, 3000} {
		got := read(t, path, containerlog.Options{Tail: int64(n)})
		if got != strings.Join(want[len(want)-n:], "") {
			t.Errorf("tail %d is wrong (%d bytes)", n, len(got))
		}
	}
}

type shared struct {
	mu  sync.Mutex
	buf bytes.Buffer
	got chan struct{}
}

func (s *shared) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n, err := s.buf.Write(p)
	select {
	case s.got <- struct{}{}:
	default:
	}
	return n, err
}

func (s *shared) await(t *testing.T, want string) {
	t.Helper()
	for {
		s.mu.Lock()
		have := s.buf.String()
		s.mu.Unlock()
		if have == want {
			return
		}

		select {
		case <-s.got:
		case <-time.After(time.Minute):
			t.Fatalf("have %q, want %q", have, want)
		}
	}
}

// followUntil wants all of a log until a container has ended.
func followUntil(ended <-chan struct{}) containerlog.Options {
	return containerlog.Options{
		Tail:   -1,
		Follow: true,
		Running: func(context.Context) (bool, error) {
			select {
			case <-ended:
				return false, nil
			default:
				return true, nil
			}
		},
	}
}

func TestFollowOverRotationUntilTheContainerEnds(t *testing.T) {
	path := filepath.Join(t.TempDir(), "0.log")
	write(t, path, line(1, "stdout", "F", "1"))
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()

	out := &shared{got: make(chan struct{}, 1)}
	ended := make(chan struct{})
	done := make(chan error, 1)
	go func() {
		done <- containerlog.Read(t.Context(), path, followUntil(ended), out)
	}()

	out.await(t, "1\n")
	say := func(f *os.File, text string) {
		if _, err := f.WriteString(text); err != nil {
			t.Fatal(err)
		}
	}

	say(f, "2026-01-02T03:04:05Z stdo")
	say(f, "ut F 2\n")
	out.await(t, "1\n2\n")
	if err := os.Rename(path, path+".20260101-000000"); err != nil {
		t.Fatal(err)
	}

	// the runtime has not reopened yet
	say(f, line(3, "stdout", "F", "3"))
	write(t, path, line(4, "stdout", "F", "4"))
	out.await(t, "1\n2\n3\n4\n")
	close(ended)
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestFollowPrintsWhatWasWrittenLastEvenIfNobodyKnowsTheContainer(t *testing.T) {
	path := filepath.Join(t.TempDir(), "0.log")
	write(t, path, line(1, "stdout", "F", "1"))
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()

	lost := errors.New("the runtime is away")
	out := &shared{got: make(chan struct{}, 1)}
	err = containerlog.Read(t.Context(), path, containerlog.Options{
		Tail:   -1,
		Follow: true,
		Running: func(context.Context) (bool, error) {
			_, err := f.WriteString(line(2, "stdout", "F", "2"))
			return false, errors.Join(lost, err)
		},
	}, out)
	if !errors.Is(err, lost) {
		t.Errorf("error %v", err)
	}

	out.await(t, "1\n2\n")
}

// allocated is how many bytes a function takes from the heap.
func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// hugeLine writes a log whose only line has size bytes, in entries of the given length (0: in one, as
// runtimes write that do not split).
func hugeLine(t *testing.T, size, entry int) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "0.log")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()

	if entry == 0 {
		entry = size
	}

	w := bufio.NewWriter(f)
	for left := size; left > 0; left -= entry {
		tag := "P"
		if left <= entry {
			tag = "F"
		}

		w.WriteString("2026-01-02T03:04:05Z stdout " + tag + " ")
		for range min(entry, left) {
			w.WriteByte('x')
		}

		w.WriteByte('\n')
	}

	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}

	return path
}

func TestTailOfAHugeLineIsBounded(t *testing.T) {
	const size, bound = 16 << 20, 1 << 20
	for _, entry := range []int{0, 16 << 10} {
		path := hugeLine(t, size, entry)
		for tail := range int64(4) {
			var got string
			took := allocated(func() {
				got = read(t, path, containerlog.Options{Tail: tail, Timestamps: true})
			})
			if most := tail*bound + 100; int64(len(got)) > most || int64(len(got)) < tail*bound*9/10 {
				t.Errorf("entries of %d, tail %d: %d bytes, want %d at most", entry, tail, len(got), most)
			}

			// most of it is what collects the output here
			if took > 24<<20 {
				t.Errorf("entries of %d, tail %d: %d bytes allocated", entry, tail, took)
			}
			if tail > 0 && !strings.HasSuffix(got, "x\n") {
				t.Errorf("entries of %d, tail %d: ends in %q", entry, tail, got[max(len(got)-10, 0):])
			}
		}
	}
}

// count counts bytes and forgets them.
type count int

func (c *count) Write(p []byte) (int, error) { *c += count(len(p)); return len(p), nil }

func TestHugeLineIsReadInPieces(t *testing.T) {
	const size = 16 << 20
	for _, entry := range []int{0, 16 << 10} {
		path := hugeLine(t, size, entry)
		for _, follow := range []bool{false, true} {
			var n count
			took := allocated(func() {
				o := containerlog.Options{Tail: -1, Follow: follow}
				if err := containerlog.Read(t.Context(), path, o, &n); err != nil {
					t.Fatal(err)
				}
			})
			if n != size+1 {
				t.Errorf("entries of %d, follow %v: %d bytes, want %d", entry, follow, n, size+1)
			}
			if entry == 0 && took > 1<<20 {
				t.Errorf("follow %v: %d bytes allocated", follow, took)
			}
		}
	}
}

func TestLogIsNeverReadThroughALink(t *testing.T) {
	dir := t.TempDir()
	secret, path := filepath.Join(dir, "secret"), filepath.Join(dir, "0.log")
	write(t, secret, line(1, "stdout", "F", "secret"))
	if err := os.Symlink(secret, path); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	err := containerlog.Read(t.Context(), path, containerlog.Options{Tail: -1}, &out)
	if err == nil || out.Len() > 0 {
		t.Errorf("%q, %v", out.String(), err)
	}
}

// FuzzTail compares the way back from the end with the way from the beginning.
func FuzzTail(f *testing.F) {
	split := line(1, "stdout", "P", "a") + line(1, "stdout", "F", "b")
	f.Add([]byte(split+"torn\n"+line(2, "stdout", "P", "c")), int64(2))
	f.Add([]byte("\n\n"), int64(1))
	f.Fuzz(func(t *testing.T, data []byte, tail int64) {
		path := filepath.Join(t.TempDir(), "0.log")
		write(t, path, string(data))
		all := read(t, path, containerlog.Options{Tail: -1})
		if tail < 0 {
			return
		}
		if got := read(t, path, containerlog.Options{Tail: tail}); !strings.HasSuffix(all, got) {
			t.Errorf("tail %d is %q, not the end of %q", tail, got, all)
		}
		if got := read(t, path, containerlog.Options{Tail: int64(len(data)) + 1}); got != all {
			t.Errorf("a tail of more lines than there are is %q, not %q", got, all)
		}
	})
}
