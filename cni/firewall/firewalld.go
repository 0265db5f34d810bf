package firewall

import (
	"fmt"
	"net/netip"
	"os"
	"strings"

	"github.com/godbus/dbus/v5"
)

// daemon is firewalld, by D-Bus.
type daemon struct{ bus *dbus.Conn }

// daemonName is what the daemon is called on the bus.
const daemonName = "org.fedoraproject.FirewallD1"

// busPath is the socket of the system's message bus.
const busPath = "/run/dbus/system_bus_socket"

// connect connects to the message bus, where there is one.
func connect() (daemon, error) {
	if os.Getenv("DBUS_SYSTEM_BUS_ADDRESS") == "" {
		if _, err := os.Stat(busPath); err != nil {
			return daemon{}, fmt.Errorf("firewalld: no message bus: %w", err)
		}
	}
	bus, err := dbus.ConnectSystemBus()
	if err != nil {
		return daemon{}, fmt.Errorf("firewalld: connect to the message bus: %w", err)
	}
	return daemon{bus: bus}, nil
}

func withDaemon(f func(daemon) error) error {
	d, err := connect()
	if err != nil {
		return err
	}
	defer func() { _ = d.close() }()
	if !d.running() {
		return fmt.Errorf("firewalld does not run (%s is not on the message bus)", daemonName)
	}
	return f(d)
}

// IsRunning returns an error unless firewalld runs.
func IsRunning() error { return withDaemon(func(daemon) error { return nil }) }

func (d daemon) close() error { return d.bus.Close() }

// running reports whether the daemon is on the bus.
func (d daemon) running() bool {
	var owner string
	call := d.bus.BusObject().Call("org.freedesktop.DBus.GetNameOwner", 0, daemonName)
	return call.Store(&owner) == nil
}

// zone calls a method of the daemon's zones.
func (d daemon) zone(method, zone string, a netip.Addr) *dbus.Call {
	source := netip.PrefixFrom(a, a.BitLen()).String()
	object := d.bus.Object(daemonName, "/org/fedoraproject/FirewallD1")
	return object.Call(daemonName+".zone."+method, 0, zone, source)
}

func (d daemon) add(zone string, addresses []netip.Addr) error {
	for _, a := range addresses {
		err := d.zone("addSource", zone, a).Err
		if err != nil && !strings.Contains(err.Error(), "ZONE_ALREADY_SET") {
			return fmt.Errorf("firewalld: add %s to zone %s: %w", a, zone, err)
		}
	}
	return nil
}

func (d daemon) check(zone string, addresses []netip.Addr) error {
	for _, a := range addresses {
		var there bool
		if err := d.zone("querySource", zone, a).Store(&there); err != nil {
			return fmt.Errorf("firewalld: look for %s in zone %s: %w", a, zone, err)
		}
		if !there {
			return fmt.Errorf("firewalld: address %s is not in zone %s", a, zone)
		}
	}
	return nil
}

// remove does not fail: the zone may not exist any more.
func (d daemon) remove(zone string, addresses []netip.Addr) {
	for _, a := range addresses {
		_ = d.zone("removeSource", zone, a).Err
	}
}
