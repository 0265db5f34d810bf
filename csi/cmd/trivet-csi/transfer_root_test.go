package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/csi/volume"
	"github.com/trivet-node/trivet/internal/program"
	"github.com/trivet-node/trivet/internal/retry"
)

// verb is the program with the arguments of a person, for the driver of the process.
func (p *process) verb(verb string, args ...string) *exec.Cmd {
	p.t.Helper()
	where := []string{
		verb,
		"--endpoint=unix://" + p.dir + "/csi.sock",
		"--node-name=node-a",
		"--data-dir=" + p.dir + "/data",
		"--state-dir=" + p.dir + "/run",
		"--kubelet-dir=" + p.dir + "/kubelet",
	}
	cmd := exec.CommandContext(p.t.Context(), os.Args[0], append(where, args...)...)
	cmd.Env = append(os.Environ(), "BE_TRIVET_CSI=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}

// output runs a verb and returns what it prints.
func output(cmd *exec.Cmd) (string, error) {
	var errs strings.Builder
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("%w: %s", err, errs.String())
	}
	return string(out), err
}

// do does steps of a life that must succeed.
func (p *process) do(steps ...func(context.Context) error) {
	p.t.Helper()
	if err := doAll(p.t.Context(), steps); err != nil {
		p.t.Fatal(err)
	}
}

// kinds are lives of volumes of all kinds.
func (p *process) kinds() map[string]*life {
	kinds := map[string]*life{}
	for _, k := range []struct {
		backend, fsType string
		block           bool
	}{
		{"btrfs", "btrfs", false},
		{"btrfs", "ext4", false},
		{"btrfs", "", true},
		{"image", "ext4", false},
		{"image", "", true},
	} {
		l := p.life(strings.Trim(fmt.Sprintf("v-%s-%s", k.backend, k.fsType), "-"))
		l.backend, l.fsType, l.block = k.backend, k.fsType, k.block
		kinds[l.name] = l
	}
	return kinds
}

// encrypted is a volume in the pool that is encrypted.
func (p *process) encrypted() *life {
	l := p.life("v-encrypted")
	l.fsType, l.secret = "ext4", "the key of a life, which is long enough"
	return l
}

// A volume of each kind is exported while a pod uses it, if it can be, and imported beside it.
func TestVolumesAreExportedAndImported(t *testing.T) {
	p := newProcess(t)
	for name, l := range p.kinds() {
		t.Run(name, func(t *testing.T) {
			p.do(l.create, l.stage, l.publish, l.write)
			if l.backend == "image" {
				out, err := output(p.verb("export", l.id))
				if err == nil || !strings.Contains(err.Error(), "has no snapshots") {
					t.Errorf("in use: %d bytes, %v", len(out), err)
				}
				p.do(l.unpublish, l.unstage)
			}

			stream, err := output(p.verb("export", l.id))
			if err != nil {
				t.Fatal(err)
			}

			// What is written later is not in it.
			if l.backend != "image" {
				p.do(l.unpublish, l.unstage)
			}
			p.do(l.delete)

			for range 2 {
				in := p.verb("import", "--name=from-"+name)
				in.Stdin = strings.NewReader(stream)
				out, err := output(in)
				if err != nil || !strings.Contains(out, "volumeHandle: "+volume.ID("from-"+name)+"\n") {
					t.Fatalf("%s, %v", out, err)
				}
			}

			r := *l
			r.name, r.id = "from-"+name, volume.ID("from-"+name)
			p.do(r.stage, r.publish, r.read, r.unpublish, r.unstage, r.delete)
		})
	}

	p.end(syscall.SIGTERM)
	p.nothingLeft()
}

func TestSnapshotIsExported(t *testing.T) {
	p := newProcess(t)
	l := p.life("v")
	l.fsType = "ext4"
	p.do(l.create, l.stage, l.publish, l.write, l.snapshot, l.unpublish, l.unstage, l.delete)
	stream, err := output(p.verb("export", l.snapshotID))
	if err != nil {
		t.Fatal(err)
	}
	p.do(l.deleteSnapshot)

	in := p.verb("import", "--name=from-v", "--fs-type=btrfs", "--size=32Mi")
	in.Stdin = strings.NewReader(stream)
	if out, err := output(in); err != nil || !strings.Contains(out, `storage: "33554432"`) {
		t.Fatalf("%s, %v", out, err)
	}

	r := *l
	r.name, r.id, r.fsType = "from-v", volume.ID("from-v"), "btrfs"
	p.do(r.stage, r.publish, r.read, r.unpublish, r.unstage, r.delete)
	p.end(syscall.SIGTERM)
	p.nothingLeft()
}

// The stream ends in its middle, or is another one: the volume is not there afterwards.
func TestStreamsThatAreNotWholeLeaveNothing(t *testing.T) {
	p := newProcess(t)
	l := p.life("v")
	p.do(l.create, l.stage, l.publish, l.write)
	stream, err := output(p.verb("export", l.id))
	if err != nil {
		t.Fatal(err)
	}
	p.do(l.unpublish, l.unstage, l.delete)

	changed := []byte(stream)
	changed[len(changed)/2] ^= 1
	half, almost := stream[:len(stream)/2], stream[:len(stream)-1]
	for _, bad := range []string{"", stream[:700], half, almost, string(changed)} {
		in := p.verb("import", "--name=bad")
		in.Stdin = strings.NewReader(bad)
		if out, err := output(in); err == nil || out != "" {
			t.Errorf("%d of %d bytes: %q, %v", len(bad), len(stream), out, err)
		}
	}

	whole := p.verb("import", "--name=good")
	whole.Stdin = strings.NewReader(stream)
	if _, err := output(whole); err != nil {
		t.Fatal(err)
	}
	again, err := output(p.verb("export", volume.ID("good")))
	if err != nil {
		t.Fatal(err)
	}
	other := p.verb("import", "--name=good")
	other.Stdin = strings.NewReader(again)
	if _, err := output(other); err == nil || !strings.Contains(err.Error(), "exists with other properties") {
		t.Errorf("another stream of that name: %v", err)
	}

	l.id = volume.ID("good")
	p.do(l.delete)
	p.end(syscall.SIGTERM)
	p.nothingLeft()
}

// stuck is an import or export that waits in its middle for who never comes.
func (p *process) stuck(cmd *exec.Cmd, begin func() error) {
	p.t.Helper()
	cmd.Stderr = p.t.Output()
	if err := errors.Join(cmd.Start(), begin()); err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { _ = cmd.Process.Kill() })
}

// fill writes more to a volume than a pipe takes.
func (l *life) fill(context.Context) error {
	f, err := os.Create(filepath.Join(l.target(), "large"))
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.Write(bytes.Repeat([]byte("0123456789abcdef"), 1<<16))
	return errors.Join(err, f.Sync())
}

func TestKilledExportsAndImportsLeaveNothing(t *testing.T) {
	p := newProcess(t)
	l := p.life("v")
	l.fsType = "ext4"
	p.do(l.create, l.stage, l.publish, l.write, l.fill)
	stream, err := output(p.verb("export", l.id))
	if err != nil {
		t.Fatal(err)
	}

	for _, killDriver := range []bool{false, true} {
		out := p.verb("export", l.id)
		pipe, err := out.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		p.stuck(out, func() error {
			_, err := io.ReadFull(pipe, make([]byte, 1000))
			return err
		})

		in := p.verb("import", "--name=cut")
		feed, err := in.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		p.stuck(in, func() error {
			_, err := io.WriteString(feed, stream[:len(stream)/2])
			return err
		})

		p.awaitRecords(3)
		if killDriver {
			p.end(syscall.SIGKILL)
			for _, cmd := range []*exec.Cmd{in, out} {
				if err := cmd.Wait(); err == nil || cmd.ProcessState.ExitCode() != program.ExitFailed {
					t.Errorf("without the driver: %v", err)
				}
			}
			p.start()
			p.ready()
		} else if err := errors.Join(in.Process.Kill(), out.Process.Kill()); err != nil {
			t.Fatal(err)
		}
		p.awaitRecords(1)
	}

	p.do(l.unpublish, l.unstage, l.delete)
	p.end(syscall.SIGTERM)
	p.nothingLeft()
}

// awaitRecords waits until there are so many records of volumes.
func (p *process) awaitRecords(want int) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), time.Minute)
	defer cancel()

	var names []string
	for range retry.Every(ctx, 20*time.Millisecond) {
		entries, err := filepath.Glob(filepath.Join(p.dir, "data/volumes/*.json"))
		if err != nil {
			p.t.Fatal(err)
		}
		if names = entries; len(names) == want {
			return
		}
	}
	p.t.Fatalf("records %v, want %d", names, want)
}

func TestExportNamesWhatIsNotThere(t *testing.T) {
	p := newProcess(t)
	for _, id := range []string{"pvc-none", "../../etc", "snap-none"} {
		out, err := output(p.verb("export", id))
		if err == nil || out != "" || !strings.Contains(err.Error(), id) {
			t.Errorf("%q, %v", out, err)
		}
	}

	p.end(syscall.SIGTERM)
	_, err := output(p.verb("export", "pvc-none"))
	exit, _ := errors.AsType[*exec.ExitError](err)
	if exit == nil || exit.ExitCode() != program.ExitCantRun {
		t.Errorf("without a driver: %v", err)
	}
	if _, err := os.Stat(p.dir + "/run/loans.sock"); !errors.Is(err, unix.ENOENT) {
		t.Errorf("the socket is left: %v", err)
	}
}
