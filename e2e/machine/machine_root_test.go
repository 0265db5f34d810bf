package machine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/trivet-node/trivet/e2e/leaks"
	"github.com/trivet-node/trivet/internal/retry"
	"github.com/trivet-node/trivet/internal/testenv"
)

// TestMain lets the test program be what trivet-cluster is otherwise: the PID 1 of machines.
func TestMain(m *testing.M) {
	if done, err := Verb(context.Background(), os.Args[1:]); done {
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// boot boots a machine below /tmp, a directory that is covered inside, and halts it at the end of the test,
// when nothing may be left.
func bootForTest(t *testing.T) (*Machine, Config) { return bootWith(t, Config{}) }

// bootWith boots the machine that c describes: its name, group and what it keeps are filled in.
func bootWith(t *testing.T, c Config) (*Machine, Config) {
	t.Helper()
	dir := testenv.ShortDir(t)
	m := At(filepath.Join(dir, "m1"))
	group := "/trivet-test-" + filepath.Base(dir)
	c.Name = "m1"
	c.Group = group
	c.Hosts = "127.0.0.1 localhost\n"
	c.Keep = []string{"/var/lib/kept", "/var/lib/other"}

	t.Cleanup(func() {
		if err := m.Halt(context.Background()); err != nil {
			t.Error(err)
		}

		left, err := leaks.Host(dir, group)
		if err != nil || len(left) > 0 {
			t.Errorf("after the halt: %v %v", left, err)
		}
	})
	if err := m.Boot(t.Context(), c); err != nil {
		t.Fatal(err)
	}

	return m, c
}

func inside(t *testing.T, m *Machine, script string) string {
	t.Helper()
	cmd, err := m.Command(t.Context(), "sh", "-c", script)
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v: %s", script, err, out)
	}
	return strings.TrimSpace(string(out))
}

// What others on the host let go of while the machine runs does not live on in it.
func TestMachineKeepsNoNamespaceOfTheHosts(t *testing.T) {
	testenv.Root(t)
	pin := filepath.Join(testenv.ShortDir(t), "net")
	if err := os.WriteFile(pin, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("/proc/self/ns/net", pin, "", syscall.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Unmount(pin, syscall.MNT_DETACH) })

	m, _ := bootForTest(t)
	if got := inside(t, m, "grep -w nsfs /proc/1/mountinfo || true"); got != "" {
		t.Errorf("mounts of namespaces in the machine:\n%s", got)
	}
}

func TestMachineIsApartFromTheHost(t *testing.T) {
	testenv.Root(t)
	m, _ := bootForTest(t)
	for script, want := range map[string]string{
		"hostname":                             "m1",
		"cat /etc/hostname":                    "m1",
		"ls -A /tmp | grep -v ^trv; true":      "",
		"ls /sys/class/net":                    "lo",
		"cut -d: -f3 /proc/1/cgroup | sort -u": "/",
		"echo 1 >/proc/sys/kernel/panic; cat /proc/sys/kernel/panic": "1",
	} {
		// On v2, PID 1 is in a leaf.
		if got := inside(t, m, script); got != want && !strings.HasPrefix(got, "/init") {
			t.Errorf("%s: %q, want %q", script, got, want)
		}
	}

	mark := filepath.Base(filepath.Dir(m.Dir))
	for _, dir := range []string{"/etc", "/opt", "/var/lib", "/run", "/tmp"} {
		inside(t, m, "touch "+dir+"/"+mark)

		// In /tmp it is the test's own directory.
		if _, err := os.Stat(filepath.Join(dir, mark)); err == nil && dir != "/tmp" {
			t.Errorf("a file that was made in the machine's %s is on the host", dir)
		}
	}

	for _, path := range []string{"/" + mark, "/usr/bin/" + mark} {
		got := inside(t, m, "touch "+path+" 2>&1; true")
		if !strings.Contains(got, "Read-only file system") {
			os.Remove(path)
			t.Errorf("touch %s says %q: the machine can change the host", path, got)
		}
	}

	host, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		t.Fatal(err)
	}

	if got := inside(t, m, "cat /proc/sys/kernel/random/boot_id"); got == strings.TrimSpace(string(host)) ||
		got != m.BootID() {
		t.Errorf("boot ID %s, want one of its own", got)
	}
}

func TestOnlyKeptDirectoriesSurviveAReboot(t *testing.T) {
	testenv.Root(t)
	m, c := bootForTest(t)
	first := m.BootID()
	inside(
		t,
		m,
		"touch /var/lib/kept/x /var/lib/lost /run/lost; mkdir /sys/fs/cgroup/memory/pods 2>/dev/null || "+
			"mkdir /sys/fs/cgroup/pods",
	)

	// A second halt is harmless.
	for range 2 {
		if err := m.Halt(t.Context()); err != nil {
			t.Fatal(err)
		}
	}

	// So is a second boot.
	for range 2 {
		if err := m.Boot(t.Context(), c); err != nil {
			t.Fatal(err)
		}
	}

	kept := inside(t, m, "ls -d /var/lib/kept/x /var/lib/lost /run/lost 2>/dev/null || true")
	if kept != "/var/lib/kept/x" {
		t.Errorf("after the reboot there are %q, want only what is kept", kept)
	}
	if m.BootID() == first {
		t.Error("the boot ID is the same after a reboot")
	}

	groups := inside(t, m, "ls -d /sys/fs/cgroup/memory/pods /sys/fs/cgroup/pods 2>/dev/null || true")
	if groups != "" {
		t.Errorf("cgroup %s is still there after the reboot", groups)
	}
}

func TestDaemonsAreStartedKilledAndReaped(t *testing.T) {
	testenv.Root(t)
	m, _ := bootForTest(t)
	d := Daemon{
		Name: "sleeper",
		Argv: []string{"/bin/sh", "-c", "echo started; trap 'exit 7' TERM; sleep 1000 & wait"},
	}

	state := func() State {
		t.Helper()
		states, err := m.List()
		if err != nil || len(states) != 1 {
			t.Fatalf("states %v, %v", states, err)
		}

		return states[0]
	}

	// It is started once.
	for range 2 {
		if err := m.Start(d); err != nil {
			t.Fatal(err)
		}
	}

	pid := state().Pid
	if pid == 0 || state().HostPid == 0 {
		t.Fatalf("state %+v, want it running", state())
	}

	awaitLog(t, m.path("log", "sleeper.log"), "started")
	if err := m.Stop("sleeper", 10*time.Second); err != nil {
		t.Fatal(err)
	}
	if s := state(); s.Pid != 0 || s.Exit != "exit code 7" {
		t.Errorf("state %+v after the stop, want exit code 7", s)
	}
	if err := m.Start(d); err != nil {
		t.Fatal(err)
	}
	if err := m.Kill("sleeper"); err != nil {
		t.Fatal(err)
	}
	if s := state(); s.Pid != 0 || s.Exit != "signal killed" {
		t.Errorf("state %+v after the kill", s)
	}
}

func TestDaemonThatIsNotThereIsNamed(t *testing.T) {
	testenv.Root(t)
	m, _ := bootForTest(t)
	for what, err := range map[string]error{
		"kill":         m.Kill("nobody"),
		"restart":      m.Restart("nobody"),
		"kill program": m.KillProgram("nobody"),
	} {
		if err == nil || !strings.Contains(err.Error(), "nobody") {
			t.Errorf("%s: error %v, want one that names the daemon", what, err)
		}
	}

	err := m.Start(Daemon{Name: "ghost", Argv: []string{"/no/such/program"}})
	if err == nil || !strings.Contains(err.Error(), "/no/such/program") {
		t.Errorf("start: error %v, want one that names the program", err)
	}
}

func TestDaemonIsRestartedInTheEnvironmentOfItsStart(t *testing.T) {
	testenv.Root(t)
	m, _ := bootForTest(t)
	if err := m.Start(Daemon{
		Name: "sleeper",
		Argv: []string{"/bin/sh", "-c", "echo PATH=$PATH; exec /bin/sleep 1000"},
		Env:  []string{"PATH=/elsewhere"},
	}); err != nil {
		t.Fatal(err)
	}

	awaitLog(t, m.LogFile("sleeper"), "PATH=/elsewhere\n")
	if err := m.KillProgram("sleeper"); err != nil {
		t.Fatal(err)
	}
	if err := m.Restart("sleeper"); err != nil {
		t.Fatal(err)
	}

	awaitLog(t, m.LogFile("sleeper"), "PATH=/elsewhere\nPATH=/elsewhere\n")
}

func TestHaltAfterPID1WasKilled(t *testing.T) {
	testenv.Root(t)
	m, c := bootForTest(t)
	if err := m.Start(Daemon{Name: "sleeper", Argv: []string{"/bin/sleep", "1000"}}); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(m.Pid(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := m.Halt(t.Context()); err != nil {
		t.Fatal(err)
	}
	if m.Pid() != 0 {
		t.Error("it has a PID after the halt")
	}
	if err := m.Boot(t.Context(), c); err != nil {
		t.Fatal(err)
	}
}

func TestMachineWhoseDirectoryWasRemovedIsEndedByItsCgroup(t *testing.T) {
	testenv.Root(t)
	m, c := bootForTest(t)
	if err := m.Start(Daemon{Name: "sleeper", Argv: []string{"/bin/sleep", "1000"}}); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(m.Dir); err != nil {
		t.Fatal(err)
	}

	// A second sweep is harmless.
	for range 2 {
		if err := Sweep(t.Context(), c.Group); err != nil {
			t.Fatal(err)
		}
	}
}

func awaitLog(t *testing.T, file, want string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()

	for range retry.Every(ctx, time.Millisecond) {
		if data, err := os.ReadFile(file); err == nil && strings.Contains(string(data), want) {
			return
		}
	}
	t.Fatalf("%s never said %q", file, want)
}

func TestCoveredDirectoryIsTheHostsUntilItIsWrittenTo(t *testing.T) {
	testenv.Root(t)
	const own = "/usr/lib/trivet-test"
	m, _ := bootWith(t, Config{Cover: []string{filepath.Dir(own)}})
	got := inside(t, m, "ls /usr/lib/os-release; mkdir "+own+"; ls -d "+own)
	if got != "/usr/lib/os-release\n"+own {
		t.Errorf("inside: %q", got)
	}
	if _, err := os.Lstat(own); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("on the host: %v", err)
	}
}
