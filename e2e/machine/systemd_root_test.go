package machine

import (
	"os"
	"os/exec"
	"path"
	"strings"
	"testing"
	"time"

	"github.com/trivet-node/trivet/internal/testenv"
)

// bootSystemd boots the machine that c describes, with systemd.
func bootSystemd(t *testing.T, c Config) *Machine {
	t.Helper()
	testenv.Root(t)
	if _, err := os.Stat(systemdProgram); err != nil {
		testenv.Skip(t, "needs systemd (make install): %v", err)
	}
	c.Init = Systemd
	m, _ := bootWith(t, c)
	return m
}

func TestSystemdBootsWithNoUnitOfTheHost(t *testing.T) {
	m := bootSystemd(t, Config{})
	got := inside(t, m, "cat /proc/1/comm; systemctl is-system-running --wait")
	if got != "systemd\nrunning" {
		t.Errorf("PID 1 and its state: %q", got)
	}
	if got := inside(t, m, "sed -n s/^0:://p /proc/1/cgroup"); got != "/" && got != "/init.scope" {
		t.Errorf("PID 1 is in %s of cgroup v2", got)
	}
	if got := inside(t, m, "ls -d /sys/fs/cgroup/unified 2>/dev/null || true"); got != "" {
		t.Errorf("the host's cgroup v2 is mounted at %s", got)
	}

	for line := range strings.Lines(inside(t, m, "systemctl list-units --plain --no-legend --type=service")) {
		if !strings.HasPrefix(line, "dbus.service ") {
			t.Errorf("a service runs: %s", line)
		}
	}
}

func TestDaemonsAreServicesOfSystemd(t *testing.T) {
	m := bootSystemd(t, Config{})
	d := Daemon{Name: "sleeper", Env: []string{"WHO=a $b %c"},
		Argv: []string{"/bin/sh", "-c", `trap 'exit 7' TERM; echo "started by $WHO"; sleep 1000 & wait`}}
	const line = "started by a $b %c\n"

	// A second start is harmless.
	for range 2 {
		if err := m.Start(d); err != nil {
			t.Fatal(err)
		}
	}

	state := func() State {
		t.Helper()
		all, err := m.List()
		if err != nil || len(all) != 1 {
			t.Fatalf("daemons: %+v, %v", all, err)
		}

		return all[0]
	}
	if s := state(); s.Pid == 0 || s.HostPid == 0 || s.Argv[2] != d.Argv[2] {
		t.Errorf("after the start: %+v", s)
	}

	// Systemd calls a service started before that has done anything.
	log := m.path("log", "sleeper.log")
	awaitLog(t, log, line)
	if err := m.Stop("sleeper", 10*time.Second); err != nil {
		t.Fatal(err)
	}
	if s := state(); s.Pid != 0 || s.Exit != "exit code 7" {
		t.Errorf("after the stop: %+v", s)
	}
	if err := m.Restart("sleeper"); err != nil {
		t.Fatal(err)
	}
	awaitLog(t, log, line+line)
	if err := m.Kill("sleeper"); err != nil {
		t.Fatal(err)
	}
	if s := state(); s.Pid != 0 || s.Exit != "signal killed" {
		t.Errorf("after the kill: %+v", s)
	}
	if err := m.Stop("nobody", time.Second); err == nil {
		t.Error("a daemon that nobody knows is stopped")
	}
}

func TestUnitsOfPackagesAreLoadedAndNoneOfTheHosts(t *testing.T) {
	m := bootSystemd(t, Config{Packages: true, Cover: []string{"/usr"}})
	const wanted = "multi-user.target"
	const unit = `[Unit]\nWants=network-online.target\nAfter=network-online.target\n` +
		`[Service]\nExecStart=/bin/sleep 1000\n[Install]\nWantedBy=` + wanted + `\n`
	inside(t, m, "printf '"+unit+"' >/lib/systemd/system/sleeper.service; systemctl daemon-reload")
	inside(t, m, "systemctl enable --now sleeper.service")
	got := inside(t, m, "systemctl is-active sleeper.service; ls /etc/systemd/system/"+wanted+".wants")
	if got != "active\nsleeper.service" {
		t.Errorf("the service and what the target wants: %q", got)
	}
	if got := inside(t, m, "ls /lib/systemd/system"); got != "sleeper.service" {
		t.Errorf("units of packages: %q", got)
	}
}

func TestSystemdTakesWhoEntersTheMachineIntoAScope(t *testing.T) {
	m := bootSystemd(t, Config{})
	const scope = "systemd-run --quiet --scope --unit=visitor.scope cat /proc/self/cgroup"
	if got := inside(t, m, scope); !strings.Contains(got, "/visitor.scope") {
		t.Errorf("the groups of a command that asks for a scope:\n%s", got)
	}
}

// Some tests of other packages need a systemd of their own.
func TestPodGroupsOnSystemd(t *testing.T) {
	runOnSystemd(
		t,
		"./node/podcgroup",
		"TestPodLimitsAreInForceUnderSystemd",
		"TestASliceIsWidenedBeforeItsContainersAndNarrowedAfterThem",
		"TestSlicesOfPodsThatAreGoneGo",
		"TestSlicesGoWithTheUnitsThatHaveFailedInThem",
		"TestSystemdMayBeRestartedBetweenCalls",
		"TestDaemonsAreHeldToTheirReserve",
		"TestDaemonsAreHeldToTheirReserveUnderSystemd",
		"TestGroupsOfTheOtherDriverGoWhenNothingRunsInThem",
	)
}

func TestScopesOfContainersOnSystemd(t *testing.T) {
	runOnSystemd(t, "./cri/cgroupdriver", "TestScopeThatARuntimeLeftIsRemoved",
		"TestFailedScopesOfUnknownContainersAreForgotten", "TestScopesAreCollectedEvenWhenTheyFail")
}

// They run trivet-cri and trivet-monitor.
func TestUpdatesOfContainersOnSystemd(t *testing.T) {
	runOnSystemd(t, "./cri/container", "TestUpdatesAreInForceAndShownAsSuch",
		"TestSharesAreUpdatedOnTheScaleOfTheVersion",
		"TestALimitBelowWhatIsUsedIsRefusedAndNothingElseIsChanged",
		"TestMemoryThatMustNotBeSwappedStaysSoInBothDirections",
		"TestCPUsAndHugePagesAreUpdated",
		"TestUpdatesComeAtAnyTimeOfALife")
}

// runOnSystemd runs tests of a package in a machine whose PID 1 is systemd. They are built, or found built in
// the directory TRIVET_TESTS where there is no Go (make vm).
func runOnSystemd(t *testing.T, pkg string, tests ...string) {
	t.Helper()
	m := bootSystemd(t, Config{})
	name := path.Base(pkg) + ".test"
	dir := m.path("tests")
	prepare := "mkdir " + dir + " && go test -c -vet=off -o " + dir + "/" + name + " " + pkg +
		" && go build -o " + dir + " ./cri/cmd/trivet-cri ./cri/cmd/trivet-monitor"
	if built := os.Getenv("TRIVET_TESTS"); built != "" {
		prepare = "mkdir " + dir + " && cp " + built + "/{" + name + ",trivet-cri,trivet-monitor} " + dir
	}

	get := exec.CommandContext(t.Context(), "bash", "-c", prepare)
	get.Dir = "../.."
	if out, err := get.CombinedOutput(); err != nil {
		t.Fatalf("get the tests: %v: %s", err, out)
	}

	out := inside(t, m, "cd "+dir+" && TRIVET_SYSTEMD=1 TRIVET_MUST_RUN=1 TRIVET_TESTS="+dir+" ./"+name+
		" -test.v -test.timeout=10m -test.run='^("+strings.Join(tests, "|")+")$' 2>&1; true")
	passed := strings.Count("\n"+out, "\n--- PASS: ")
	if passed != len(tests) || !strings.HasSuffix(out, "PASS") {
		t.Errorf("not all of the %d tests passed:\n%s", len(tests), out)
	}
}
