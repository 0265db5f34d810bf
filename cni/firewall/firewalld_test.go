package firewall

import (
	"bufio"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/godbus/dbus/v5"

	"github.com/trivet-node/trivet/internal/testenv"
)

const busConfig = `<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><type>system</type><listen>unix:path=SOCKET</listen>
<policy context="default"><allow send_destination="*" eavesdrop="true"/><allow eavesdrop="true"/>
<allow own="*"/></policy></busconfig>`

// startBus starts a message bus and has this process take it for the system's.
func startBus(t *testing.T) {
	t.Helper()
	program := testenv.Program(t, "dbus-daemon", "dbus-daemon")
	dir := t.TempDir()
	socket := filepath.Join(dir, "bus")
	config := filepath.Join(dir, "bus.conf")
	text := strings.Replace(busConfig, "SOCKET", socket, 1)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}

	bus := exec.Command(program, "--config-file="+config, "--nofork", "--print-address")
	out, err := bus.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := bus.Start(); err != nil {
		t.Fatal(err)
	}

	t.Cleanup(func() {
		_ = bus.Process.Kill()
		_ = bus.Wait()
	})

	// It prints its address when it listens.
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	t.Setenv("DBUS_SYSTEM_BUS_ADDRESS", "unix:path="+socket)
}

// zones answers for firewalld, as far as its zones have sources.
type zones struct {
	mu      sync.Mutex
	sources []string
}

func (z *zones) AddSource(zone, source string) (string, *dbus.Error) {
	z.mu.Lock()
	defer z.mu.Unlock()
	if slices.Contains(z.sources, zone+" "+source) {
		const name = "org.fedoraproject.FirewallD1.Exception"
		return "", dbus.NewError(name, []any{"ZONE_ALREADY_SET: " + source})
	}

	z.sources = append(z.sources, zone+" "+source)
	return zone, nil
}

func (z *zones) RemoveSource(zone, source string) (string, *dbus.Error) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.sources = slices.DeleteFunc(z.sources, func(s string) bool { return s == zone+" "+source })
	return zone, nil
}

func (z *zones) QuerySource(zone, source string) (bool, *dbus.Error) {
	z.mu.Lock()
	defer z.mu.Unlock()
	return slices.Contains(z.sources, zone+" "+source), nil
}

func (z *zones) list() []string {
	z.mu.Lock()
	defer z.mu.Unlock()
	return slices.Clone(z.sources)
}

// startFirewalld puts the stand-in on the bus.
func startFirewalld(t *testing.T) *zones {
	t.Helper()
	bus, err := dbus.ConnectSystemBus()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = bus.Close() })

	z := &zones{}
	methods := map[string]string{
		"AddSource":    "addSource",
		"RemoveSource": "removeSource",
		"QuerySource":  "querySource",
	}
	if err := bus.ExportWithMap(z, methods, "/org/fedoraproject/FirewallD1", daemonName+".zone"); err != nil {
		t.Fatal(err)
	}
	if _, err := bus.RequestName(daemonName, dbus.NameFlagDoNotQueue); err != nil {
		t.Fatal(err)
	}

	return z
}

func TestContainersAreInAZoneOfFirewalld(t *testing.T) {
	startBus(t)
	both := []netip.Addr{netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("fd00::2")}
	absent := withDaemon(func(d daemon) error { return d.add("trusted", both) })
	if absent == nil || !strings.Contains(absent.Error(), "firewalld does not run") {
		t.Errorf("without firewalld: %v", absent)
	}

	z := startFirewalld(t)
	if got := Choose(); got != Firewalld {
		t.Errorf("where firewalld runs, the backend is %s", got)
	}

	// What is there already is success.
	for range 2 {
		if err := withDaemon(func(d daemon) error { return d.add("trusted", both) }); err != nil {
			t.Fatal(err)
		}
	}

	want := []string{"trusted 10.0.0.2/32", "trusted fd00::2/128"}
	if got := z.list(); !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
	if err := withDaemon(func(d daemon) error { return d.check("trusted", both) }); err != nil {
		t.Error(err)
	}
	if err := withDaemon(func(d daemon) error { return d.check("public", both) }); err == nil {
		t.Error("another zone has them, too")
	}

	if err := forbidFirewalld(Pod{Zone: "trusted", Addresses: both}); err != nil || len(z.list()) != 0 {
		t.Errorf("%v, left %q", err, z.list())
	}
}
