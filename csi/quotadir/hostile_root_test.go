package quotadir_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/csi/quotadir"
	"github.com/trivet-node/trivet/csi/volume"
	"github.com/trivet-node/trivet/internal/projectquota"
)

// bind makes a file, or directory, immutable, as a pod with CAP_LINUX_IMMUTABLE can.
func (n *node) bind(path string) {
	n.t.Helper()
	const immutable = 0x10
	f, err := os.Open(path)
	n.must(err)
	defer f.Close()
	flags, err := unix.IoctlGetUint32(int(f.Fd()), unix.FS_IOC_GETFLAGS)
	n.must(err, unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, int(flags|immutable)))
}

// put puts a file into a project, as its owner can.
func (n *node) put(path string, project uint32) {
	n.t.Helper()
	f, err := os.Open(path)
	n.must(err, projectquota.Put(f, project), f.Close())
}

func TestImmutableFilesDoNotOutliveTheirVolume(t *testing.T) {
	onEach(t, func(t *testing.T, n *node) {
		v, other := n.create("v", 8*mib), n.create("other", 8*mib)
		dir, _ := n.path(v)
		_, victim := n.path(other)
		n.must(os.MkdirAll(dir+"/sub/a", 0o700))
		for i := range 20 {
			path := fmt.Sprintf("%s/sub/%d", dir, i)
			n.must(os.WriteFile(path, nil, 0o600))
			n.bind(path)
		}
		n.bind(dir + "/sub/a")
		n.bind(dir + "/sub")
		n.put(dir, victim)
		n.bind(dir)
		n.must(n.Delete(t.Context(), v.ID), n.Delete(t.Context(), other.ID))
		n.awaitNothing()
	})
}

func TestImmutableAndLeasedFilesArePutBack(t *testing.T) {
	const breakTime = "/proc/sys/fs/lease-break-time"
	before, err := os.ReadFile(breakTime)
	if err != nil {
		t.Fatal(err)
	}
	onEach(t, func(t *testing.T, n *node) {
		n.must(os.WriteFile(breakTime, []byte("2"), 0o600))
		defer func() { n.must(os.WriteFile(breakTime, before, 0o600)) }()
		v := n.create("v", 16*mib)
		dir, project := n.path(v)
		for _, name := range []string{"bound", "leased"} {
			n.must(os.WriteFile(filepath.Join(dir, name), make([]byte, 2*mib), 0o600))
			n.put(filepath.Join(dir, name), 0)
		}
		n.bind(dir + "/bound")
		leased, err := os.OpenFile(dir+"/leased", os.O_RDWR, 0)
		n.must(err)
		defer leased.Close()
		_, err = unix.FcntlInt(leased.Fd(), unix.F_SETLEASE, unix.F_WRLCK)
		n.must(err)

		told := make(chan string, 64)
		n.dirs.OnFinding(func(id string, err error) { told <- id + ": " + err.Error() })
		n.use(v)
		n.eventually("they are put back", func() error {
			if used, _ := n.look(project); used.Bytes < 4*mib || used.Inodes != 3 {
				return fmt.Errorf("charged %+v", used)
			}
			return nil
		})
		if text := <-told; text != v.ID+": 2 files were outside of its project, and were put back" {
			t.Errorf("reported: %s", text)
		}
		n.must(leased.Close())
		n.remove(v)
		n.awaitNothing()
	})
}

// What was taken out before the driver is started is put back, also in a volume that nobody uses any more.
func TestVolumesAreLookedAtAfterARestart(t *testing.T) {
	onEach(t, func(t *testing.T, n *node) {
		v := n.create("v", 16*mib)
		dir, project := n.path(v)
		n.must(os.WriteFile(dir+"/file", make([]byte, mib), 0o600))
		n.put(dir+"/file", 0)
		n.kill()
		n.start()
		n.eventually("it is put back", func() error {
			if used, _ := n.look(project); used.Inodes != 2 {
				return fmt.Errorf("charged %+v", used)
			}
			return nil
		})
		n.must(n.Delete(t.Context(), v.ID))
		n.awaitNothing()
	})
}

func TestLimitThatWasLostHoldsWithTheNextUse(t *testing.T) {
	onEach(t, func(t *testing.T, n *node) {
		v := n.create("v", 8*mib)
		dir, project := n.path(v)
		f, err := os.Open(dir)
		n.must(err, projectquota.Limit(f, project, projectquota.Limits{}), f.Close())
		n.use(v)
		if _, limits := n.look(project); limits.Bytes != 8*mib || limits.Inodes == 0 {
			t.Errorf("limits %+v", limits)
		}
		n.remove(v)
	})
}

// A volume that somebody still writes to does not keep others from being deleted.
func TestDeletionsTakeTurns(t *testing.T) {
	onEach(t, func(t *testing.T, n *node) {
		busy := n.create("busy", 64*mib)
		dir, _ := n.path(busy)
		n.must(os.Mkdir(dir+"/sub", 0o700))
		sub, err := os.Open(dir + "/sub")
		n.must(err)
		defer sub.Close()
		ended := make(chan struct{})
		var writer sync.WaitGroup
		writer.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-ended:
					return
				default:
				}
				// It fails when the directory is gone.
				_ = unix.Mknodat(int(sub.Fd()), fmt.Sprint(i), unix.S_IFREG|0o600, 0)
			}
		})
		stop := sync.OnceFunc(func() { close(ended); writer.Wait() })
		defer stop()

		var others []volume.Volume
		for i := range 8 {
			others = append(others, n.create(fmt.Sprint("v", i), mib))
		}
		n.must(n.Delete(t.Context(), busy.ID))
		for _, v := range others {
			n.must(n.Delete(t.Context(), v.ID))
		}
		n.eventually("the others are gone", func() error {
			for _, name := range n.names(true) {
				if quotadir.IDOf(name) != busy.ID {
					return errors.New(name + " is left")
				}
			}
			return nil
		})
		stop()
		n.must(sub.Close())
		n.awaitNothing()
	})
}

// A file elsewhere on the disk may be in the project of a volume: its number is not free before that is gone.
func TestFilesElsewhereKeepTheNumberOfADeletedVolume(t *testing.T) {
	onEach(t, func(t *testing.T, n *node) {
		v, next := n.create("v", 8*mib), n.create("next", 8*mib)
		_, project := n.path(v)
		elsewhere := filepath.Join(n.disk, "elsewhere")
		n.must(os.WriteFile(elsewhere, make([]byte, mib), 0o600))
		n.put(elsewhere, project)
		n.must(n.Delete(t.Context(), v.ID), n.Delete(t.Context(), next.ID))
		n.eventually("the other one is gone", func() error {
			if left := n.names(true); len(left) != 1 {
				return errors.New(strings.Join(left, " "))
			}
			return nil
		})
		if _, limits := n.look(project); limits.Bytes != 8*mib {
			t.Errorf("limits %+v while a file of the project is there", limits)
		}
		n.must(os.Remove(elsewhere))
		n.awaitNothing()
	})
}

// Nobody knows which of two volumes a project is of.
func TestNumberOfTwoVolumesIsRefused(t *testing.T) {
	onEach(t, func(t *testing.T, n *node) {
		v := n.create("v", 8*mib)
		_, project := n.path(v)
		n.kill()
		volumes, _ := quotadir.Paths(n.dir)
		copied := volume.ID("copied")
		path := fmt.Sprintf("%s/%s.%d", volumes, copied, project)
		n.must(os.Mkdir(path, 0o700), os.WriteFile(path+"/file", nil, 0o600))
		n.put(path, project)
		n.start()
		if err := n.report.Damaged[v.ID]; !errors.Is(err, volume.ErrDamaged) ||
			!strings.Contains(err.Error(), fmt.Sprint(project)) {
			t.Errorf("the volume: %v", err)
		}

		n.must(n.Delete(t.Context(), copied))
		n.eventually("the copy is gone", func() error {
			if left := n.names(true); len(left) > 0 {
				return errors.New(strings.Join(left, " "))
			}
			return nil
		})
		if _, limits := n.look(project); limits.Bytes != 8*mib {
			t.Errorf("the volume's limits are %+v", limits)
		}
		n.kill()
		n.start()
		if len(n.report.Damaged) > 0 {
			t.Errorf("after the copy is gone: %v", n.report.Damaged)
		}
		n.must(n.Delete(t.Context(), v.ID))
		n.awaitNothing()
	})
}
