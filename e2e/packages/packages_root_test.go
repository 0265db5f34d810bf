// Package packages has a test of the Debian packages of make dist on a machine whose PID 1 is systemd. What
// they do to files is tested in release/check.
package packages

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/trivet-node/trivet/e2e/leaks"
	"github.com/trivet-node/trivet/e2e/machine"
	"github.com/trivet-node/trivet/internal/retry"
	"github.com/trivet-node/trivet/internal/testenv"
)

// TestMain lets the test program be the PID 1 of machines.
func TestMain(m *testing.M) {
	if done, err := machine.Verb(context.Background(), os.Args[1:]); done {
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// host is a machine on which packages are installed.
type host struct {
	*machine.Machine
	t *testing.T

	// packages are those of make dist, older the same with an older version.
	packages string
	older    string
}

// olderVersion is that of the packages that are upgraded.
const olderVersion = "0.0.1"

// bootHost boots a machine on which none of the packages is, and halts it when the test ends.
func bootHost(t *testing.T) host {
	t.Helper()
	dist := os.Getenv("TRIVET_DIST")
	if dist == "" {
		t.Skip("TRIVET_DIST names no directory of make dist: run make dist-check")
	}
	testenv.Root(t)
	testenv.Program(t, "dpkg-deb", "dpkg")
	testenv.Program(t, "systemctl", "systemd")

	dir := testenv.ShortDir(t)
	h := host{
		Machine:  machine.At(filepath.Join(dir, "host")),
		t:        t,
		packages: "/opt/packages",
	}
	h.older = filepath.Join(h.Dir, "older")
	group := "/trivet-test-" + filepath.Base(dir)
	t.Cleanup(func() {
		if err := h.Halt(context.Background()); err != nil {
			t.Error(err)
		}
		if left, err := leaks.Host(dir, group); err != nil || len(left) > 0 {
			t.Errorf("after the halt: %v %v", left, err)
		}
	})

	err := h.Boot(t.Context(), machine.Config{
		Name:     h.Name,
		Init:     machine.Systemd,
		Packages: true,
		Group:    group,
		Hosts:    "127.0.0.1 localhost\n",
		Keep:     []string{"/var/lib/trivet"},
		Cover:    []string{"/usr"},
		Expose:   map[string]string{filepath.Join(dist, "packages"): h.packages},
	})
	if err != nil {
		t.Fatal(err)
	}

	// An image of a container may forbid that services are started.
	h.sh("rm -f /usr/sbin/policy-rc.d")
	h.makeOlder(filepath.Join(dist, "packages"))
	h.logService()
	return h
}

// makeOlder packs the packages once more, with an older version.
func (h host) makeOlder(packages string) {
	h.t.Helper()
	const script = `mkdir "$2"
		for deb in "$1"/*_"$4".deb; do
			dpkg-deb --raw-extract "$deb" "$2/x"
			sed -i "s/^Version: .*/Version: $3/" "$2/x/DEBIAN/control"
			dpkg-deb -Znone --build "$2/x" "$2" >/dev/null
			rm -r "$2/x"
		done`
	cmd := exec.Command("sh", "-euc", script, "sh", packages, h.older, olderVersion, runtime.GOARCH)
	if out, err := cmd.CombinedOutput(); err != nil {
		h.t.Fatalf("pack older packages: %v\n%s", err, out)
	}
}

// logService has what the runtime says in a file, which a failed test shows: there is no journal.
func (h host) logService() {
	h.t.Helper()
	log := h.LogFile("trivet-cri")
	text := "[Service]\nStandardOutput=append:" + log + "\nStandardError=append:" + log + "\n"
	if err := h.WriteUnits(map[string]string{"trivet-cri.service.d/log.conf": text}); err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() {
		if said, err := os.ReadFile(log); err == nil && h.t.Failed() {
			h.t.Logf("trivet-cri says:\n%s", said)
		}
	})
}

// sh runs a script on the machine, and returns what it prints.
func (h host) sh(script string, args ...string) string {
	h.t.Helper()
	cmd, err := h.Command(h.t.Context(), "sh", append([]string{"-euc", script, "sh"}, args...)...)
	if err != nil {
		h.t.Fatal(err)
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		h.t.Fatalf("%s %q: %v\n%s", script, args, err, out)
	}
	return strings.TrimSpace(string(out))
}

// dpkg calls it; dependencies are the machine's matter.
func (h host) dpkg(args string) {
	h.t.Helper()
	h.t.Logf("dpkg %s:\n%s", args,
		h.sh("export DEBIAN_FRONTEND=noninteractive DPKG_COLORS=never; dpkg --force-depends "+args))
}

// version is that of a package.
func (h host) version(name string) string {
	h.t.Helper()
	return h.sh("dpkg-query --show --showformat='${Version}' " + name)
}

// eventually looks until it finds nothing wrong.
func (h host) eventually(limit time.Duration, look func() error) {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(h.t.Context(), limit)
	defer cancel()

	steps := retry.Backoff{First: 50 * time.Millisecond, Max: 500 * time.Millisecond}
	if err := retry.Until(ctx, steps, func(context.Context) error { return look() }); err != nil {
		h.t.Fatal(err)
	}
}

// state is a service's, as systemd has it: whether it runs, with which process, and whether it will at boot.
type state struct{ active, pid, enabled string }

func (h host) state(service string) state {
	h.t.Helper()
	values := map[string]string{}
	const properties = "--property=ActiveState,MainPID,UnitFileState"
	for line := range strings.Lines(h.sh("systemctl show " + properties + " " + service)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		values[key] = value
	}
	return state{values["ActiveState"], values["MainPID"], values["UnitFileState"]}
}

// TestPackagesOnAMachineThatSystemdRuns installs, upgrades and removes them under a container that runs.
func TestPackagesOnAMachineThatSystemdRuns(t *testing.T) {
	h := bootHost(t)
	h.dpkg("--install " + h.older + "/*.deb")
	first := h.state("trivet-cri")
	if first.active != "active" || first.enabled != "enabled" {
		t.Fatalf("after the installation trivet-cri is %+v", first)
	}

	// These have no credentials, and the agent is the administrator's to start.
	for service, want := range map[string]state{
		"trivet-netd": {"inactive", "0", "enabled"},
		"trivet-csi":  {"inactive", "0", "enabled"},
		"trivet-node": {"inactive", "0", "disabled"},
	} {
		if got := h.state(service); got != want {
			t.Errorf("after the installation %s is %+v, want %+v", service, got, want)
		}
	}

	c := h.runCounter()
	h.dpkg("--install " + h.packages + "/*_" + runtime.GOARCH + ".deb")
	second := h.state("trivet-cri")
	if second.active != "active" || second.pid == first.pid {
		t.Errorf("after the upgrade trivet-cri is %+v, before %+v", second, first)
	}
	if version := h.version("trivet-cri"); version == olderVersion {
		t.Errorf("after the upgrade trivet-cri has the version %s", version)
	}
	c.goesOn("the upgrade")

	// Its parent is not of the service: it runs on with its container, and is found again.
	h.dpkg("--remove trivet-cri")
	if got := h.state("trivet-cri"); got.active != "inactive" || got.pid != "0" {
		t.Errorf("after the removal trivet-cri is %+v", got)
	}
	c.lives("the removal")
	h.dpkg("--install " + h.packages + "/trivet-cri_*_" + runtime.GOARCH + ".deb")
	c.goesOn("the removal and another installation")

	c.end()
	h.dpkg("--remove trivet-cri")
	h.eventually(10*time.Second, func() error {
		if left := append(h.Find("trivet-monitor"), h.Find("trivet-cri")...); len(left) > 0 {
			return fmt.Errorf("after the removal with no pod left the processes %v run", left)
		}
		return nil
	})
}
