package quotadir

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// heard is a driver without volumes, and what it reports.
func heard() (*Dirs, *[]string) {
	d, texts := &Dirs{numbers: newNumbers("a"), reports: &reports{}}, &[]string{}
	d.strays = newStrays(d)
	d.trash = newTrash("", d.numbers, d.reports)
	d.OnFinding(func(id string, err error) { *texts = append(*texts, id+": "+err.Error()) })
	return d, texts
}

// lookIn is a look at a directory.
func lookIn(t *testing.T, dir string) *look {
	t.Helper()
	root, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	l := &look{root: root, project: firstNumber}
	t.Cleanup(l.close)
	var st unix.Stat_t
	if err := unix.Fstat(int(root.Fd()), &st); err != nil {
		t.Fatal(err)
	}
	if err := l.walk.Enter(int(root.Fd()), "v", &st); err != nil {
		t.Fatal(err)
	}
	return l
}

func TestLookEndsAtADepth(t *testing.T) {
	dir := t.TempDir()
	at, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	for range deepest + 10 {
		if err == nil {
			err = unix.Mkdirat(at, "d", 0o700)
		}
		below := -1
		if err == nil {
			below, err = unix.Openat(at, "d", unix.O_RDONLY|unix.O_DIRECTORY, 0)
		}
		unix.Close(at)
		at = below
	}
	unix.Close(at)
	if err != nil {
		t.Fatal(err)
	}

	l, lowest := lookIn(t, dir), 0
	for !l.goOn(time.Now()) {
		lowest = max(lowest, l.walk.Depth())
	}
	if !l.deep || lowest > deepest {
		t.Errorf("deep %v, it was %d directories down", l.deep, lowest)
	}
	if err := l.found(false); err == nil || !strings.Contains(err.Error(), "deeper than 2048") {
		t.Errorf("reported: %v", err)
	}
}

func TestLookWithoutAFindingIsNotReported(t *testing.T) {
	l := &look{cut: true}
	l.leave(nil)
	l.leave(&os.PathError{Op: "open", Err: unix.ENOENT})
	if err := l.found(false); err != nil {
		t.Error(err)
	}
	l.putBack = 3
	l.leave(unix.EDQUOT)
	err := l.found(true)
	for _, want := range []string{"3 files were outside", "1 files could not", "moved or deleted all"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
}

// The rest is looked at at once, and who goes on is reported once.
func TestLookThatMovesHaveCutShortIsFollowedByTheNext(t *testing.T) {
	d, texts := heard()
	for i := range mostCut + 2 {
		l := lookIn(t, t.TempDir())
		l.cut = true
		d.strays.looks["v"] = l
		d.strays.end("v")
		_, waits := d.strays.ended["v"]
		if waits != (i+1 >= mostCut) || !d.strays.used["v"] {
			t.Errorf("look %d: it waits %v, used %v", i, waits, d.strays.used)
		}
	}
	if len(*texts) != 1 || !strings.HasPrefix((*texts)[0], "v: directories are moved") {
		t.Errorf("reported %q", *texts)
	}

	d.strays.looks["v"] = lookIn(t, t.TempDir())
	d.strays.end("v")
	if _, early := d.strays.ended["v"]; !early || len(d.strays.cut) > 0 {
		t.Errorf("after a whole one: %v, %v", d.strays.ended, d.strays.cut)
	}
}

// A look at a large volume ends by age only where another volume waits.
func TestLooksEndForThoseThatWait(t *testing.T) {
	d, _ := heard()
	s := d.strays
	s.mayBeIn("waits")
	if s.isFull() {
		t.Error("nothing is looked at, and it is full")
	}
	for i := range mostLooks {
		id := fmt.Sprint(i)
		s.looks[id] = &look{}
		s.mayBeIn(id)
	}
	if !s.isFull() {
		t.Error("it is not full, and one waits")
	}
	s.ended["waits"] = time.Now()
	if s.isFull() {
		t.Error("it is full, and none waits")
	}
}

func TestDeletionThatFailsForLongIsReportedOnce(t *testing.T) {
	d, texts := heard()
	now := time.Now()
	for i := range 10 {
		d.trash.fails("v", "v.1", errors.New("it is so"), now.Add(time.Duration(i)*worth/3))
	}
	if len(*texts) != 1 || (*texts)[0] != "v: it was deleted, and something is left of it: it is so" {
		t.Errorf("reported %q", *texts)
	}
}

func TestATrashThatCannotBeReadIsReportedOnceUntilItCan(t *testing.T) {
	d, texts := heard()
	d.trash.dir = filepath.Join(t.TempDir(), "trash")
	for range 3 {
		if _, _, err := d.trash.empty(t.Context()); err == nil {
			t.Fatal("a directory that is not there was read")
		}
	}
	if len(*texts) != 1 || !strings.Contains((*texts)[0], d.trash.dir) {
		t.Errorf("reported %q", *texts)
	}

	if err := os.Mkdir(d.trash.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if _, _, err := d.trash.empty(t.Context()); err != nil {
		t.Fatal(err)
	}
	d.trash.dir += "-gone"
	if _, _, err := d.trash.empty(t.Context()); err == nil || len(*texts) != 2 {
		t.Errorf("%v, reported %q", err, *texts)
	}
}
