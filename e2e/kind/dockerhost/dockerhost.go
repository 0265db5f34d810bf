// Package dockerhost is where the containers of a kind cluster run: a Docker daemon on a machine of its own,
// made of namespaces (package machine), whose programs come from Debian's packages without being installed;
// or the Docker that the user has. What works with a daemon of its own must be in its network namespace: see
// Own.Enter.
package dockerhost

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/e2e/kind/debian"
	"github.com/trivet-node/trivet/e2e/kind/ociwrapper"
	"github.com/trivet-node/trivet/e2e/leaks"
	"github.com/trivet-node/trivet/e2e/loopdev"
	"github.com/trivet-node/trivet/e2e/machine"
	"github.com/trivet-node/trivet/internal/loopcontrol"
	"github.com/trivet-node/trivet/internal/retry"
)

// packages are dockerd, its command, and what these call or link beside what a host has anyway.
var packages = []string{"docker.io", "containerd", "tini", "runc", "libdevmapper1.02.1"}

// machineName is the name of the machine on which dockerd runs.
const machineName = "docker"

// startLimit bounds a start of dockerd, which takes two seconds. It first takes in the containers that ran
// when it was killed.
const startLimit = time.Minute

// Own is a Docker daemon on a machine of its own. All of it but programs is below Dir.
type Own struct {
	Dir string // absolute

	// Programs is where Docker's are, or are unpacked.
	Programs string

	// Expose are other directories that the daemon sees, under the same paths.
	Expose []string
}

func (o *Own) machine() *machine.Machine {
	return machine.At(filepath.Join(o.Dir, "machines", machineName))
}

// groups is the cgroup above that of the machine. Clusters in different directories have different ones.
func (o *Own) groups() string {
	h := fnv.New32a()
	h.Write([]byte(o.Dir))
	return fmt.Sprintf("/trivet-kind-%x", h.Sum32())
}

// Fetch downloads and unpacks the programs, unless they are there.
func (o *Own) Fetch(ctx context.Context) error { return debian.Unpack(ctx, o.Programs, packages) }

// Up boots the machine and starts dockerd, unless they run.
func (o *Own) Up(ctx context.Context) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}

	// Docker makes /lib/modules for kind's volume where the host has none.
	config := machine.Config{
		Name:   machineName,
		Group:  o.groups() + "/" + machineName,
		Hosts:  "127.0.0.1 localhost\n::1 localhost\n",
		Keep:   []string{"/var/lib/docker"},
		Expose: map[string]string{o.Dir: o.Dir, filepath.Dir(self): filepath.Dir(self)},
		Cover:  []string{"/usr/lib"},
	}
	for _, dir := range append(o.Expose, o.Programs) {
		config.Expose[dir] = dir
	}

	m := o.machine()
	if err := m.Boot(ctx, config); err != nil {
		return err
	}

	loopback, err := m.Command(ctx, "ip", "link", "set", "lo", "up")
	if err != nil {
		return err
	}
	if out, err := loopback.CombinedOutput(); err != nil {
		return fmt.Errorf("network of machine %s: %w: %s", m.Name, err, out)
	}

	daemon, err := o.daemon(self)
	if err != nil {
		return err
	}
	if err := m.Start(daemon); err != nil {
		return err
	}

	return o.await(ctx)
}

// daemon is dockerd. Its OCI runtime is runc, or the wrapper where runc alone cannot do.
func (o *Own) daemon(self string) (machine.Daemon, error) {
	argv := []string{
		filepath.Join(o.Programs, "usr/sbin/dockerd"),
		"--oom-score-adjust=0",
		"--host=unix://" + socket,
	}

	wrapped, err := ociwrapper.Needed()
	if err != nil {
		return machine.Daemon{}, err
	}

	if wrapped {
		link := filepath.Join(o.Programs, "usr/bin", ociwrapper.Name)
		if err := os.Remove(link); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return machine.Daemon{}, err
		}
		if err := os.Symlink(self, link); err != nil {
			return machine.Daemon{}, err
		}

		argv = append(argv,
			"--add-runtime="+ociwrapper.Name+"="+link,
			"--default-runtime="+ociwrapper.Name,
		)
	}

	return machine.Daemon{Name: "dockerd", Argv: argv, Env: []string{"PATH=" + o.path()}}, nil
}

// path is PATH with Docker's programs.
func (o *Own) path() string {
	return strings.Join([]string{
		filepath.Join(o.Programs, "usr/bin"),
		filepath.Join(o.Programs, "usr/sbin"),
		"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
	}, ":")
}

// socket is dockerd's, inside its machine.
const socket = "/run/docker.sock"

// outside is the path of the socket for processes outside the machine. It is short, wherever Dir is.
func (o *Own) outside() string {
	return filepath.Join("/proc", strconv.Itoa(o.machine().Pid()), "root", socket)
}

// await returns when dockerd answers, or has ended.
func (o *Own) await(ctx context.Context) error {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", o.outside())
	}
	transport := &http.Transport{DialContext: dial, DisableKeepAlives: true}
	client := http.Client{Transport: transport, Timeout: 10 * time.Second}

	limit, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()

	err := retry.Until(limit, retry.Backoff{First: 50 * time.Millisecond, Max: 500 * time.Millisecond},
		func(ctx context.Context) error {
			request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://docker/_ping", nil)
			if err != nil {
				return err
			}

			answer, err := client.Do(request)
			if err != nil {
				return err
			}

			return answer.Body.Close()
		})
	if err != nil {
		return fmt.Errorf("dockerd does not answer (its log is %s): %w", o.machine().LogFile("dockerd"), err)
	}

	return nil
}

// Running reports whether there is a daemon.
func (o *Own) Running() bool { return o.machine().Pid() != 0 }

// Enter makes this process one of the network namespace of the machine, if it is not yet: by executing
// itself there with the same arguments. It returns only when it is inside, or with an error.
func (o *Own) Enter() error {
	pid := o.machine().Pid()
	if pid == 0 {
		return errors.New("no kind cluster is up")
	}

	theirs, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", pid))
	if err != nil {
		return err
	}
	if ours, err := os.Readlink("/proc/self/ns/net"); err != nil || ours == theirs {
		return err
	}

	nsenter, err := exec.LookPath("nsenter")
	if err != nil {
		return err
	}

	self, err := os.Executable()
	if err != nil {
		return err
	}

	argv := []string{nsenter, "--target", strconv.Itoa(pid), "--net", "--", self}
	return unix.Exec(nsenter, append(argv, os.Args[1:]...), os.Environ())
}

// Environ are the variables by which commands find this Docker.
func (o *Own) Environ() []string {
	return []string{
		"PATH=" + o.path(),
		"DOCKER_HOST=unix://" + o.outside(),
		"DOCKER_CONFIG=" + filepath.Join(o.Dir, "docker-config"),
	}
}

// Reboot has the host lose its power, and starts it again with its Docker: all processes end at once, and
// what is not on a disk is gone. Docker starts those containers that ran.
func (o *Own) Reboot(ctx context.Context) error {
	if err := o.powerOff(ctx); err != nil {
		return err
	}
	return o.Up(ctx)
}

// Down ends the machine with all its containers, and removes what they have left: loop devices, cgroups and
// files. Its programs stay. It is safe to repeat.
func (o *Own) Down(ctx context.Context) error {
	if err := o.powerOff(ctx); err != nil {
		return err
	}
	return os.RemoveAll(filepath.Dir(o.machine().Dir))
}

// powerOff ends the machine, and whatever the kernel would not have after a reboot.
func (o *Own) powerOff(ctx context.Context) error {
	m := o.machine()
	if err := m.Halt(ctx); err != nil {
		return err
	}

	// A machine without a record is found by its group.
	if err := machine.Sweep(ctx, o.groups()); err != nil {
		return err
	}

	devices, err := loopdev.OnFilesBelow(filepath.Join(m.Dir, "keep"))
	if err != nil {
		return err
	}

	for device, file := range devices {
		if err := loopdev.Detach(device, file); err != nil {
			return err
		}
	}

	return loopcontrol.Mend()
}

// Leaks lists what is left of a machine that is down.
func (o *Own) Leaks() ([]leaks.Leak, error) { return leaks.Host(o.Dir, o.groups()) }
