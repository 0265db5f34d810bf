package projectquota_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/internal/mountinfo"
	"github.com/trivet-node/trivet/internal/projectquota"
	"github.com/trivet-node/trivet/internal/retry"
	"github.com/trivet-node/trivet/internal/testenv"
)

func TestMain(m *testing.M) { os.Exit(testenv.OwnMounts(m)) }

// must ends the test at an error of any step.
func must(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

// onEach runs a test on each file system that has project quotas, with a directory of it.
func onEach(t *testing.T, test func(t *testing.T, dir string)) {
	for _, kind := range []string{"ext4", "xfs"} {
		t.Run(kind, func(t *testing.T) { test(t, testenv.ProjectQuotas(t, kind)) })
	}
}

// newProject returns a new directory with a project.
func newProject(t *testing.T, path string) string {
	t.Helper()
	must(t, os.Mkdir(path, 0o700), projectquota.Assign(path))
	return path
}

// uses waits until a project takes so much: xfs frees what is deleted a moment later. Some bytes beyond those
// of files are the directories'. With 0 inodes it may be any number.
func uses(t *testing.T, dir string, bytes, inodes uint64) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()

	var got projectquota.Usage
	var err error
	for range retry.Every(ctx, 10*time.Millisecond) {
		got, err = projectquota.Of(dir)
		must(t, err)
		if got.Bytes >= bytes && got.Bytes <= bytes+64<<10 && (inodes == 0 || got.Inodes == inodes) {
			return
		}
	}

	t.Errorf("%s takes %+v, want %d bytes and %d inodes", dir, got, bytes, inodes)
}

func TestProjectHasWhatIsMadeBelowItsDirectory(t *testing.T) {
	onEach(t, func(t *testing.T, dir string) {
		a, b := newProject(t, dir+"/a"), newProject(t, dir+"/b")
		uses(t, a, 0, 1)

		must(t, os.MkdirAll(a+"/x/y", 0o700), os.WriteFile(a+"/x/y/file", make([]byte, 8<<20), 0o600))
		uses(t, a, 8<<20, 4)
		uses(t, b, 0, 1)

		// It keeps its project, and nothing moves from one into the other.
		must(t, projectquota.Assign(a))
		uses(t, a, 8<<20, 4)
		if err := os.Rename(a+"/x/y/file", b+"/file"); !errors.Is(err, unix.EXDEV) {
			t.Errorf("rename into another project: %v", err)
		}

		must(t, os.RemoveAll(a+"/x"))
		uses(t, a, 0, 1)
	})
}

func TestDirectoryWithoutAProjectHasNone(t *testing.T) {
	onEach(t, func(t *testing.T, dir string) {
		must(t, os.Mkdir(dir+"/plain", 0o700))
		if _, err := projectquota.Of(dir + "/plain"); !errors.Is(err, projectquota.ErrNone) {
			t.Errorf("a directory without a project: %v", err)
		}
	})
}

// An overlay moves files between its directories, which must therefore be of one project.
func TestOverlayWritesIntoAProject(t *testing.T) {
	onEach(t, func(t *testing.T, dir string) {
		lower, root := dir+"/lower", dir+"/root"
		p := newProject(t, dir+"/container")
		must(t, os.MkdirAll(lower+"/etc", 0o755), os.Mkdir(root, 0o700),
			os.WriteFile(lower+"/etc/passwd", make([]byte, 1<<20), 0o600),
			os.Mkdir(p+"/upper", 0o700), os.Mkdir(p+"/work", 0o700))
		options := "lowerdir=" + lower + ",upperdir=" + p + "/upper,workdir=" + p + "/work"
		must(t, unix.Mount("overlay", root, "overlay", 0, options))
		defer unix.Unmount(root, 0)

		f, err := os.OpenFile(root+"/etc/passwd", os.O_APPEND|os.O_WRONLY, 0)
		must(t, err)
		_, err = f.WriteString("more")
		must(t, err, f.Close())
		must(
			t,
			os.WriteFile(root+"/new", make([]byte, 1<<20), 0o600),
			os.Rename(root+"/new", root+"/etc/new"),
			os.Remove(root+"/etc/passwd"),
			os.WriteFile(root+"/etc/passwd", make([]byte, 1<<20), 0o600),
		)

		// How many inodes the overlay needs for itself is the kernel's.
		uses(t, p, 2<<20, 0)
	})
}

func TestLimitsHoldAndAreTheSizeThatIsSeen(t *testing.T) {
	onEach(t, func(t *testing.T, dir string) {
		state, err := projectquota.StateOf(dir)
		if err != nil || !state.Holds {
			t.Fatalf("%+v, %v", state, err)
		}
		must(t, os.Mkdir(dir+"/a", 0o700))
		f, err := os.Open(dir + "/a")
		must(t, err)
		defer f.Close()

		want := projectquota.Limits{Bytes: 8 << 20, Inodes: 100}
		must(t, projectquota.Put(f, 7), projectquota.Put(f, 7), projectquota.Limit(f, 7, want))
		member, err := projectquota.Project(f)
		used, limits, lookErr := projectquota.Look(f, 7)
		must(t, err, lookErr)
		if member != (projectquota.Membership{Project: 7, Inherited: true}) || limits != want ||
			used.Inodes != 1 {
			t.Errorf("%+v with %+v has %+v", member, limits, used)
		}
		var disk unix.Statfs_t
		must(t, unix.Statfs(dir+"/a", &disk))
		if got := disk.Blocks * uint64(disk.Bsize); got != want.Bytes || disk.Files != want.Inodes {
			t.Errorf("statfs says %d bytes and %d inodes", got, disk.Files)
		}

		must(t, projectquota.Put(f, 0), projectquota.Limit(f, 7, projectquota.Limits{}))
		if used, limits, err := projectquota.Look(f, 7); err != nil || used.Inodes != 0 ||
			limits != (projectquota.Limits{}) {
			t.Errorf("left: %+v, %+v, %v", used, limits, err)
		}
	})
}

// A disk that has project quotas and is mounted without says so.
func TestDiskThatIsMountedWithoutIsNamed(t *testing.T) {
	for _, kind := range []string{"ext4", "xfs"} {
		t.Run(kind, func(t *testing.T) {
			dir := testenv.ProjectQuotas(t, kind)
			table, err := mountinfo.Self()
			must(t, err)
			source := ""
			for _, m := range table {
				if m.Point == dir {
					source = m.Source
				}
			}
			f, err := os.Open(source)
			must(t, err)
			defer f.Close()
			must(t, unix.Unmount(dir, 0), unix.Mount(source, dir, kind, 0, ""))
			state, err := projectquota.StateOf(dir)
			if why, _ := state.Lack(); err != nil || state.Holds || !state.Kernel || why == "" {
				t.Errorf("%+v, %q, %v", state, why, err)
			}
		})
	}
}

// chattrInUserNamespace runs chattr(1) as root of a user namespace, whom the file belongs to there.
func chattrInUserNamespace(t *testing.T, args ...string) error {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), testenv.Program(t, "chattr", "e2fsprogs"), args...)
	one := []syscall.SysProcIDMap{{Size: 1}}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER,
		UidMappings: one,
		GidMappings: one,
	}
	out, err := cmd.CombinedOutput()
	t.Logf("chattr %v: %s", args, out)
	return err
}

// That is why limits hold for pods in user namespaces, whatever they do.
func TestNothingIsTakenOutInAUserNamespace(t *testing.T) {
	onEach(t, func(t *testing.T, dir string) {
		a := newProject(t, dir+"/a")
		must(t, os.WriteFile(a+"/file", make([]byte, 1<<20), 0o600))
		for _, args := range [][]string{{"-p", "0", a + "/file"}, {"-p", "0", a}, {"-P", a}} {
			if err := chattrInUserNamespace(t, args...); err == nil {
				t.Errorf("chattr %v succeeds", args)
			}
		}
		uses(t, a, 1<<20, 2)

		// What it may change otherwise shows that it is not for lack of rights.
		must(t, chattrInUserNamespace(t, "+d", a+"/file"))
	})
}
