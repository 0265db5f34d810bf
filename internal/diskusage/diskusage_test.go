package diskusage

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/internal/retry"
)

// newMeter returns a meter that counts a small tree at once, however slow the machine is.
func newMeter(t *testing.T) *Meter {
	t.Helper()
	m := New(slog.New(slog.DiscardHandler))
	m.work.quick = time.Hour
	t.Cleanup(m.Close)
	return m
}

// must ends the test at an error of any step.
func must(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

func write(path string, bytes int) error { return os.WriteFile(path, make([]byte, bytes), 0o600) }

// du is what the program of that name says.
func du(t *testing.T, dir string) Usage {
	t.Helper()
	number := func(args ...string) uint64 {
		out, err := exec.CommandContext(t.Context(), "du", append(args, dir)...).Output()
		if err != nil {
			t.Fatal(err)
		}

		text, _, _ := strings.Cut(string(out), "\t")
		n, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			t.Fatal(err)
		}

		return n
	}

	return Usage{Bytes: number("-s", "-B1"), Inodes: number("-s", "--inodes")}
}

func TestFigureIsThatOfDu(t *testing.T) {
	dir := t.TempDir()
	sparse, err := os.Create(filepath.Join(dir, "sparse"))
	must(t, err)
	must(t, sparse.Truncate(10<<30), sparse.Close())
	must(t,
		os.Mkdir(filepath.Join(dir, "a"), 0o700),
		write(filepath.Join(dir, "a", "file"), 100_000),
		os.Symlink("/usr", filepath.Join(dir, "a", "link")),
		os.Symlink(strings.Repeat("n", 200), filepath.Join(dir, "long")),
		unix.Mkfifo(filepath.Join(dir, "fifo"), 0o600),
	)

	for i := range 7 {
		must(t, os.Link(filepath.Join(dir, "a", "file"), filepath.Join(dir, strconv.Itoa(i))))
	}

	got := newMeter(t).Measure(t.Context(), "a", Tree{Dirs: []string{dir}, Activity: Unknown})
	if want := du(t, dir); got.Usage != want || got.AtLeast || got.Time.IsZero() {
		t.Errorf("%+v, want %+v", got, want)
	}
}

func TestDirectoriesAreAddedUpAndMissingOnesAreNothing(t *testing.T) {
	a, b := t.TempDir(), t.TempDir()
	must(t, write(a+"/1", 5000), write(b+"/2", 9000))
	tree := Tree{Dirs: []string{a, a + "/none", b, b + "/2"}, Activity: Unknown}
	got := newMeter(t).Measure(t.Context(), "a", tree)
	of, more, file := du(t, a), du(t, b), du(t, b+"/2")
	want := Usage{
		Bytes:  of.Bytes + more.Bytes + file.Bytes,
		Inodes: of.Inodes + more.Inodes + file.Inodes,
	}
	if got.Usage != want {
		t.Errorf("%+v, want %+v", got.Usage, want)
	}
}

// deepen makes nested directories and returns the innermost one.
func deepen(t *testing.T, dir string, name string, depth int) *os.Root {
	t.Helper()
	at, err := os.OpenRoot(dir)
	for range depth {
		must(t, err, at.Mkdir(name, 0o700))
		above := at
		at, err = at.OpenRoot(name)
		above.Close()
	}
	must(t, err)
	t.Cleanup(func() { at.Close() })
	return at
}

func TestTreeThatIsDeeperThanAPathIsCountedToItsEnd(t *testing.T) {
	dir := t.TempDir()
	bottom := deepen(t, dir, strings.Repeat("n", 200), 300)
	must(t, bottom.WriteFile("hidden", make([]byte, 1<<20), 0o600))

	m := newMeter(t)
	tree := Tree{Dirs: []string{dir}, Activity: 1}
	want := m.Measure(t.Context(), "at once", tree)
	if want.Bytes < 1<<20 || want.Inodes != 302 || want.AtLeast {
		t.Errorf("%+v, want 302 inodes and 1 MiB", want)
	}

	// On a slow disk it is one of the trees that take turns.
	m.work.quick = 0
	m.rest(time.Hour)
	got := m.Measure(t.Context(), "in slices", tree)
	if got.Inodes >= 302 || !got.AtLeast {
		t.Errorf("%+v at once", got)
	}

	m.rest(0)
	for range retry.Every(t.Context(), time.Millisecond) {
		if got = m.Measure(t.Context(), "in slices", tree); !got.AtLeast {
			break
		}
	}
	if got.Usage != want.Usage || got.AtLeast {
		t.Errorf("%+v, want %+v", got, want)
	}
}

// rest sets the pause before the next slice of trees that take turns.
func (m *Meter) rest(pause time.Duration) {
	m.work.mu.Lock()
	defer m.work.mu.Unlock()
	m.work.restUntil = time.Now().Add(pause)
	m.work.tell()
}

func TestTreeThatChangesMeanwhileIsMeasured(t *testing.T) {
	dir := t.TempDir()
	for i := range 40 {
		must(t, os.MkdirAll(filepath.Join(dir, strconv.Itoa(i), "d", "e"), 0o700))
	}

	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)

		for i := 0; ctx.Err() == nil; i++ {
			name := filepath.Join(dir, strconv.Itoa(i%40))
			_ = os.Rename(filepath.Join(name, "d"), filepath.Join(name, "f"))
			_ = os.RemoveAll(filepath.Join(name, "f"))
			_ = os.MkdirAll(filepath.Join(name, "d", "e"), 0o700)
			_ = os.Symlink("/", filepath.Join(name, "d", "root"))
		}
	}()

	for i := range 50 {
		got := newMeter(t).Measure(t.Context(), "a", Tree{Dirs: []string{dir}, Activity: Unknown})
		if got.Inodes < 41 || got.Inodes > 300 || got.AtLeast {
			t.Errorf("count %d: %+v", i, got)
		}
	}

	cancel()
	<-ended
}

// A file system of its own shows exactly what happens in it; here only the CPU time does.
func TestTreeIsNotCountedWhenItsWritersDidNotRun(t *testing.T) {
	dir := t.TempDir()
	m := newMeter(t)
	tree := Tree{Dirs: []string{dir}, Activity: 1000}
	before := m.Measure(t.Context(), "a", tree)
	must(t, write(dir+"/1", 50_000))

	m.age("a", time.Minute)
	same := m.Measure(t.Context(), "a", tree)
	if same.Usage != before.Usage || !same.Time.After(before.Time) {
		t.Errorf("%+v after %+v: it was counted, or its figure is not as good as new", same, before)
	}

	tree.Activity++
	if got := m.Measure(t.Context(), "a", tree); got.Usage != du(t, dir) {
		t.Errorf("%+v, want %+v", got, du(t, dir))
	}
}

// age makes the last count of a tree older.
func (m *Meter) age(name string, by time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.trees[name].last.began = m.trees[name].last.began.Add(-by)
}

func TestTreesThatAreNotKeptAreForgotten(t *testing.T) {
	dir := t.TempDir()
	m := newMeter(t)
	for _, name := range []string{"a", "b"} {
		m.Measure(t.Context(), name, Tree{Dirs: []string{dir}, Activity: Ended})
	}

	m.Keep(func(name string) bool { return name == "b" })
	if _, ok := m.trees["b"]; !ok || len(m.trees) != 1 {
		t.Errorf("%d trees are left", len(m.trees))
	}
}

func TestLargeTreeIsCountedInSlicesAndFewDescriptors(t *testing.T) {
	dir := t.TempDir()
	deepen(t, dir, "d", 3000)
	whole := count{dirs: []string{dir}}
	for !whole.step(time.Time{}, math.MaxInt) {
		whole.walk.Pause()
		if open := descriptors(t); open > 40 {
			t.Fatalf("%d descriptors", open)
		}
	}

	if whole.usage().Inodes != 3001 || whole.unseen != 0 {
		t.Errorf("%+v, unseen %d (%v)", whole.usage(), whole.unseen, whole.err)
	}
}

func descriptors(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	must(t, err)
	return len(entries)
}

// The walk is far below when a directory above it is moved out of the tree, and the way back is lost.
func TestWayBackThatIsLostIsSaid(t *testing.T) {
	dir, other := t.TempDir(), t.TempDir()
	deepen(t, dir, "d", 100)
	must(t, write(dir+"/z", 4096))
	c := count{dirs: []string{dir}}
	for c.walk.Depth() < 100 {
		c.next()
	}

	must(t, os.Rename(filepath.Join(dir, strings.Repeat("d/", 50)), filepath.Join(other, "d")))
	for c.next() {
	}

	if c.unseen != 1 || c.usage().Inodes < 101 {
		t.Errorf("unseen %d, %+v", c.unseen, c.usage())
	}
}

// countless makes a tree that takes more than one slice, without making one that is that large.
func countless(t *testing.T, m *Meter, name, dir string) {
	t.Helper()
	m.Measure(t.Context(), name, Tree{Dirs: []string{dir}, Activity: Unknown})
	m.mu.Lock()
	defer m.mu.Unlock()
	m.trees[name].last.large = true
	m.trees[name].last.began = time.Time{}
}

func TestNobodyWaitsForATreeThatTakesLong(t *testing.T) {
	m := newMeter(t)
	dir := t.TempDir()
	for i := range 30 {
		must(t, write(fmt.Sprintf("%s/%d", dir, i), 1))
	}

	countless(t, m, "large", dir)
	m.rest(time.Hour)

	// Its turn does not come, and it is not waited for; others have theirs.
	m.Measure(t.Context(), "large", Tree{Dirs: []string{dir}, Activity: Unknown})
	small := m.Measure(t.Context(), "small", Tree{Dirs: []string{dir}, Activity: Unknown})
	if small.Usage != du(t, dir) {
		t.Errorf("%+v", small)
	}
	if !m.trees["large"].counting {
		t.Error("the large one was counted")
	}
}

func BenchmarkTreeWithoutChanges(b *testing.B) {
	dir := b.TempDir()
	m := New(slog.New(slog.DiscardHandler))
	defer m.Close()
	tree := Tree{Dirs: []string{dir}, Activity: 1000}
	for b.Loop() {
		m.Measure(b.Context(), "a", tree)
	}
}

func BenchmarkCount10000Files(b *testing.B) {
	dir := b.TempDir()
	for i := range 10_000 {
		if err := write(filepath.Join(dir, strconv.Itoa(i)), 1); err != nil {
			b.Fatal(err)
		}
	}
	for b.Loop() {
		c := count{dirs: []string{dir}}
		for !c.step(time.Now().Add(time.Hour), math.MaxInt) {
		}
	}
}
