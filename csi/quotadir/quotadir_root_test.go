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
	"github.com/trivet-node/trivet/internal/testenv"
)

const mib = 1 << 20

func TestSizeHoldsAndIsWhatAPodSees(t *testing.T) {
	onEach(t, func(t *testing.T, n *node) {
		v, other := n.create("v", 32*mib), n.create("other", 8*mib)
		path := n.use(v)
		var disk unix.Statfs_t
		n.must(unix.Statfs(path, &disk))
		if size := int64(disk.Blocks) * disk.Bsize; size != 32*mib {
			t.Errorf("statfs says %d bytes", size)
		}

		written := fill(t, path+"/file")
		if written > 32*mib || written < 32*mib*98/100 {
			t.Errorf("a volume of 32 MiB took %d bytes", written)
		}
		n.must(unix.Statfs(path, &disk))
		if disk.Bavail > 64 {
			t.Errorf("it has %d blocks free", disk.Bavail)
		}
		_, usage, err := n.Stats(v.ID, path)
		if err != nil || usage.Total != 32*mib || usage.Used < written || usage.Available > mib ||
			usage.InodesUsed != 2 {
			t.Errorf("usage %+v, %v; written %d", usage, err, written)
		}

		// It is larger at once, and nobody else is smaller.
		_, err = n.Grow(t.Context(), v.ID, 64*mib, 0)
		n.must(err)
		if again := fill(t, path+"/more"); again < 31*mib || again > 32*mib {
			t.Errorf("%d bytes fit after it grew by 32 MiB", again)
		}
		if written := fill(t, n.use(other)+"/file"); written < 8*mib*98/100 {
			t.Errorf("the other one took %d bytes", written)
		}

		n.remove(v)
		n.remove(other)
		n.awaitNothing()
	})
}

func TestFilesAreLimitedInNumber(t *testing.T) {
	onEach(t, func(t *testing.T, n *node) {
		v := n.create("v", 4*mib)
		path, made := n.use(v), 0
		asPod(t, func() {
			for err := error(nil); err == nil && made < 1000; made++ {
				err = os.WriteFile(fmt.Sprintf("%s/%d", path, made), nil, 0o600)
			}
		})
		if made > 4*mib/(16<<10) {
			t.Errorf("%d empty files fit", made)
		}
		n.remove(v)
	})
}

func TestNewVolumeIsOpenToAllAndBelongsToRoot(t *testing.T) {
	onEach(t, func(t *testing.T, n *node) {
		path, project := n.path(n.create("v", 8*mib))
		var st unix.Stat_t
		n.must(unix.Stat(path, &st))
		if st.Mode&0o7777 != 0o755 || st.Uid != 0 || st.Gid != 0 {
			t.Errorf("mode %o of %d:%d", st.Mode, st.Uid, st.Gid)
		}
		used, limits := n.look(project)
		if used.Inodes != 1 || limits.Bytes != 8*mib || limits.Inodes == 0 {
			t.Errorf("used %+v, limits %+v", used, limits)
		}
	})
}

func TestVolumesOutliveTheDriver(t *testing.T) {
	onEach(t, func(t *testing.T, n *node) {
		v := n.create("v", 8*mib)
		path := n.use(v)
		n.must(os.WriteFile(path+"/file", []byte("content"), 0o600))
		dir, project := n.path(v)

		// What a pod, or somebody else, has done meanwhile is put right.
		n.kill()
		f, err := os.Open(dir)
		n.must(err)
		n.must(projectquota.Put(f, 7), projectquota.Limit(f, project, projectquota.Limits{}), f.Close())
		n.start()
		if len(n.report.Damaged)+len(n.report.Strays) > 0 {
			t.Errorf("%+v", n.report)
		}
		if _, limits := n.look(project); limits.Bytes != 8*mib {
			t.Errorf("limits %+v", limits)
		}
		if data, err := os.ReadFile(path + "/file"); string(data) != "content" {
			t.Errorf("it holds %q, %v", data, err)
		}
		if written := fill(t, path+"/more"); written > 8*mib {
			t.Errorf("%d bytes fit", written)
		}
		n.remove(v)
		n.awaitNothing()
	})
}

func TestNumbersOfOthersAreLeftAlone(t *testing.T) {
	onEach(t, func(t *testing.T, n *node) {
		_, first := n.path(n.create("a", mib))
		counted := filepath.Join(n.disk, "counted")
		used := filepath.Join(n.disk, "used")
		n.must(os.Mkdir(counted, 0o700), projectquota.Assign(counted), os.Mkdir(used, 0o700))
		f, err := os.Open(used)
		n.must(err)
		defer f.Close()
		n.must(projectquota.Put(f, first+1),
			projectquota.Limit(f, first+2, projectquota.Limits{Bytes: mib}))

		if _, second := n.path(n.create("b", mib)); second != first+3 {
			t.Errorf("project %d after %d", second, first)
		}
		if _, limits := n.look(first + 1); limits != (projectquota.Limits{}) {
			t.Errorf("somebody else's project has limits %+v", limits)
		}
	})
}

// A number is free when nothing is left of its volume: not while somebody has a file of it open.
func TestNumberIsUsedAgainAfterTheLastFileIsGone(t *testing.T) {
	onEach(t, func(t *testing.T, n *node) {
		v := n.create("v", 8*mib)
		dir, project := n.path(v)
		open, err := os.Create(dir + "/file")
		n.must(err)
		_, err = open.Write(make([]byte, mib))
		n.must(err, open.Sync(), n.Delete(t.Context(), v.ID))

		again := n.create("v", 8*mib)
		if _, other := n.path(again); other == project {
			t.Error("its number is used while a file of it is open")
		}
		n.must(open.Close(), n.Delete(t.Context(), again.ID))
		n.awaitNothing()
		n.eventually("its number is used again", func() error {
			next := n.create("next", 8*mib)
			_, other := n.path(next)
			if other == project {
				return nil
			}
			used, limits := n.look(project)
			err := fmt.Errorf("project %d has %+v of %+v, and the next volume %d",
				project, used, limits, other)
			return errors.Join(err, n.Delete(t.Context(), next.ID))
		})
	})
}

// What is left when the process is killed before, between and after the steps of making a volume.
func TestHalfMadeVolumesGiveWay(t *testing.T) {
	onEach(t, func(t *testing.T, n *node) {
		_, first := n.path(n.create("a", mib))
		volumes, trash := quotadir.Paths(n.dir)
		n.kill()
		id := volume.ID("b")
		for i, step := range []func(*os.File, uint32) error{
			func(*os.File, uint32) error { return nil },
			projectquota.Put,
			func(f *os.File, project uint32) error {
				return errors.Join(projectquota.Put(f, project),
					projectquota.Limit(f, project, projectquota.Limits{Bytes: mib}))
			},
		} {
			project := first + uint32(i) + 1
			path := fmt.Sprintf("%s/%s.%d", volumes, id, project)
			n.must(os.Mkdir(path, 0o700))
			f, err := os.Open(path)
			n.must(err, step(f, project), f.Close())
			n.start()
			n.eventually("it is removed", func() error {
				if len(n.names(false)) != 1 || len(n.names(true)) > 0 {
					return fmt.Errorf("left: %v, %v", n.names(false), n.names(true))
				}
				return nil
			})
			if _, limits := n.look(project); limits != (projectquota.Limits{}) {
				t.Errorf("step %d: limits %+v are left", i, limits)
			}
			n.kill()
		}

		// Nor is data taken away because a record is missing.
		path := fmt.Sprintf("%s/%s.%d", volumes, id, first+9)
		n.must(os.Mkdir(path, 0o700), os.WriteFile(path+"/file", nil, 0o600))
		n.must(os.Mkdir(filepath.Join(trash, "not-ours"), 0o700))
		n.start()
		if len(n.report.Strays) != 1 || !strings.Contains(n.report.Strays[0], id) {
			t.Errorf("left alone: %v", n.report.Strays)
		}
		request := volume.Request{Name: "b", Required: mib, Access: volume.Filesystem}
		if _, err := n.Create(t.Context(), request); !errors.Is(err, volume.ErrDamaged) {
			t.Errorf("a volume in place of data: %v", err)
		}
		n.must(n.Delete(t.Context(), id))
		n.remove(n.create("b", mib))
	})
}

func TestManyVolumesAtOnceHaveProjectsOfTheirOwn(t *testing.T) {
	onEach(t, func(t *testing.T, n *node) {
		var group sync.WaitGroup
		for i := range 64 {
			group.Go(func() {
				r := volume.Request{Name: fmt.Sprint(i), Required: mib, Access: volume.Filesystem}
				if _, err := n.Create(t.Context(), r); err != nil {
					t.Error(err)
				}
			})
		}
		group.Wait()

		projects := map[uint32]bool{}
		for _, name := range n.names(false) {
			_, project, ok := quotadir.Parse(name)
			if used, _ := n.look(project); !ok || used.Inodes != 1 {
				t.Errorf("%s: %v, %+v", name, ok, used)
			}
			projects[project] = true
		}
		if len(projects) != 64 {
			t.Errorf("%d projects for 64 volumes", len(projects))
		}
		for i := range 64 {
			n.must(n.Delete(t.Context(), volume.ID(fmt.Sprint(i))))
		}
		n.awaitNothing()
	})
}

func TestNoMoreIsPromisedThanTheDiskHas(t *testing.T) {
	onEach(t, func(t *testing.T, n *node) {
		r := volume.Request{Name: "a", Access: volume.Filesystem}
		free, err := n.Available(r)
		n.must(err)
		r.Required = free * 3 / 4
		v, err := n.Create(t.Context(), r)
		n.must(err)
		r.Name = "b"
		if _, err := n.Create(t.Context(), r); !errors.Is(err, volume.ErrFull) {
			t.Errorf("a second one of three quarters: %v", err)
		}

		// What is written is not counted twice.
		before, err := n.Available(r)
		n.must(err, os.WriteFile(n.use(v)+"/file", make([]byte, 64*mib), 0o600))
		unix.Sync()
		after, err := n.Available(r)
		if err != nil || after < before-8*mib || after > before+8*mib {
			t.Errorf("%d bytes could be promised before 64 MiB were written, then %d, %v", before, after, err)
		}
		n.remove(v)
	})
}

func TestWhatItHasNotIsRefusedByName(t *testing.T) {
	onEach(t, func(t *testing.T, n *node) {
		v := n.create("v", mib)
		for _, r := range []volume.Request{
			{Access: volume.Block},
			{FSType: "btrfs"},
			{Reserve: new(true)},
			{NoCOW: new(false)},
			{Options: []string{"discard"}},
			{Limits: volume.Limits{ReadBytes: mib}},
			{Source: v.ID},
			{Source: v.ID, Snapshot: true},
		} {
			if r.Access == "" && !r.Snapshot {
				r.Access = volume.Filesystem
			}
			r.Name = "another"
			_, err := n.Create(t.Context(), r)
			if !errors.Is(err, volume.ErrInvalid) || !strings.Contains(err.Error(), "backend quota") {
				t.Errorf("%+v: %v", r, err)
			}
		}
	})
}

// What a pod does that is not in a user namespace.
func TestFilesThatWereTakenOutArePutBack(t *testing.T) {
	onEach(t, func(t *testing.T, n *node) {
		v, other := n.create("v", 16*mib), n.create("other", 16*mib)
		path := n.use(v)
		_, project := n.path(v)
		_, victim := n.path(other)
		put := func(name string, project uint32) {
			f, err := os.Open(filepath.Join(path, name))
			n.must(err, projectquota.Put(f, project), f.Close())
		}
		n.must(os.MkdirAll(path+"/a/b", 0o700), unix.Mkfifo(path+"/a/fifo", 0o600),
			os.Symlink("/etc", path+"/a/link"))
		put("a", 0)
		n.must(os.WriteFile(path+"/a/hidden", make([]byte, 4*mib), 0o600))
		put("a/hidden", victim)
		put(".", 0)
		if used, _ := n.look(victim); used.Bytes < 4*mib {
			t.Fatalf("the other volume is charged for %+v", used)
		}

		n.eventually("they are put back", func() error {
			used, _ := n.look(project)
			if charged, _ := n.look(victim); charged.Bytes >= mib || used.Bytes < 4*mib {
				return fmt.Errorf("charged %+v, the other %+v", used, charged)
			}
			return nil
		})
		if written := fill(t, path+"/a/more"); written > 12*mib {
			t.Errorf("%d bytes fit beside 4 MiB", written)
		}
		n.remove(v)
		n.remove(other)
		n.awaitNothing()
	})
}

// Limits that do not hold are no limits: nothing is made, and what is there waits.
func TestDiskWithoutQuotasIsNamed(t *testing.T) {
	testenv.Root(t)
	for name, dir := range map[string]string{"tmpfs": testenv.MemoryDir(t), "disk": t.TempDir()} {
		state, err := projectquota.StateOf(dir)
		if err != nil {
			t.Fatal(err)
		}

		// The disk is one more such place on a machine where it has no quotas.
		if name != "disk" || !state.Holds {
			t.Run(name, func(t *testing.T) { isNamed(t, dir, state) })
		}
	}
}

// isNamed checks what the backend says on a directory without quotas, and what it does not do.
func isNamed(t *testing.T, dir string, state projectquota.State) {
	t.Helper()

	why, do := state.Lack()
	_, err := quotadir.Open(quotadir.Config{Dir: dir})
	if err == nil || !strings.Contains(err.Error(), dir) || !strings.Contains(err.Error(), why) ||
		!strings.Contains(err.Error(), do) {
		t.Errorf("%v", err)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) > 0 {
		t.Errorf("made: %v, %v", entries, err)
	}

	// Nor is it a backend where the disk had quotas once and no volume was made.
	volumes, trash := quotadir.Paths(dir)
	for _, path := range []string{volumes, trash, filepath.Join(volumes, "lost+found")} {
		if err := os.MkdirAll(path, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := quotadir.Open(quotadir.Config{Dir: dir}); !errors.Is(err, volume.ErrUnavailable) {
		t.Errorf("without volumes: %v", err)
	}

	if err := os.MkdirAll(filepath.Join(volumes, "pvc-1.536870912"), 0o700); err != nil {
		t.Fatal(err)
	}
	d, err := quotadir.Open(quotadir.Config{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	s := volume.Spec{ID: "pvc-1", Size: mib, Access: volume.Filesystem}
	if _, err := d.Recover(s, volume.Origin{}); !errors.Is(err, volume.ErrUnavailable) {
		t.Errorf("recover: %v", err)
	}
	if _, err := d.Create(volume.Spec{ID: "pvc-2", Size: mib}); !errors.Is(err, volume.ErrUnavailable) {
		t.Errorf("create: %v", err)
	}
	if err := d.Grow(s); !errors.Is(err, volume.ErrUnavailable) {
		t.Errorf("grow: %v", err)
	}
}
