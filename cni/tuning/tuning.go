// Package tuning changes settings of a container's network namespace and of one of its interfaces, and
// restores those of the interface. What they were is kept in a file of upstream's plugin, so that each of
// the two can restore what the other one has changed.
package tuning

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/trivet-node/trivet/cni/netlink"
	"github.com/trivet-node/trivet/cni/rtnl"
	"github.com/trivet-node/trivet/cni/sysctl"
	"github.com/trivet-node/trivet/internal/blocking"
)

// Settings are those that are changed. What is nil or zero stays as it is.
type Settings struct {
	Sysctls       []Sysctl
	MAC           net.HardwareAddr
	MTU           int
	Promiscuous   bool
	AllMulticast  *bool
	TxQueueLength *int
}

// Sysctl is a setting of the network namespace: Key is such as net.core.somaxconn, with IFNAME for the name
// of the interface.
type Sysctl struct{ Key, Value string }

// ChangesInterface reports whether anything of the interface is changed.
func (s Settings) ChangesInterface() bool {
	return s.MAC != nil || s.MTU != 0 || s.Promiscuous || s.AllMulticast != nil || s.TxQueueLength != nil
}

// name returns the setting as package sysctl names it. Only those below net are of a network namespace.
func (s Sysctl) name(ifname string) (string, error) {
	key := strings.ReplaceAll(s.Key, ".", "/")
	key = strings.Replace(key, "IFNAME", ifname, 1)
	if name := filepath.Clean("/" + key); strings.HasPrefix(name, "/net/") {
		return name[1:], nil
	}
	return "", fmt.Errorf("sysctl %q is not one of the network namespace: those begin with net", s.Key)
}

// allowList has a regular expression on each line, of which a sysctl has to match one; without it all are
// allowed.
const allowList = "/etc/cni/tuning/allowlist.conf"

// Allowed returns an error that names the first sysctl which the administrator does not allow.
func (s Settings) Allowed() error {
	data, err := blocking.ReadFile(allowList)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}

	return s.allowed(string(data))
}

func (s Settings) allowed(list string) error {
	var allowed []*regexp.Regexp
	for line := range strings.Lines(list) {
		if line = strings.TrimSpace(line); line == "" {
			continue
		}

		pattern, err := regexp.Compile(line)
		if err != nil {
			return fmt.Errorf("%s: %w", allowList, err)
		}

		allowed = append(allowed, pattern)
	}

	for _, setting := range s.Sysctls {
		matches := func(p *regexp.Regexp) bool { return p.MatchString(setting.Key) }
		if !slices.ContainsFunc(allowed, matches) {
			return fmt.Errorf("sysctl %s is not allowed by %s", setting.Key, allowList)
		}
	}

	return nil
}

// SetSysctls writes the settings of the network namespace that the thread is in.
func (s Settings) SetSysctls(ifname string) error {
	for _, setting := range s.Sysctls {
		name, err := setting.name(ifname)
		if err != nil {
			return err
		}
		if err := sysctl.Set(name, setting.Value); err != nil {
			return err
		}
	}
	return nil
}

// SetInterface changes the interface.
func (s Settings) SetInterface(pod *rtnl.Conn, link rtnl.Link) error {
	var changes []*netlink.Message
	if s.MAC != nil {
		changes = append(changes, rtnl.SetMAC(link.Index, s.MAC))
	}
	if s.Promiscuous {
		changes = append(changes, rtnl.SetPromiscuous(link.Index, true))
	}
	if s.MTU != 0 {
		changes = append(changes, rtnl.SetMTU(link.Index, s.MTU))
	}
	if s.AllMulticast != nil {
		changes = append(changes, rtnl.SetAllMulticast(link.Index, *s.AllMulticast))
	}
	if s.TxQueueLength != nil {
		changes = append(changes, rtnl.SetTxQueueLength(link.Index, *s.TxQueueLength))
	}
	return pod.Must(changes...)
}

// Check returns an error that names the first setting that is not as it was set.
func (s Settings) Check(link rtnl.Link) error {
	for _, setting := range s.Sysctls {
		name, err := setting.name(link.Name)
		if err != nil {
			return err
		}
		if got := sysctl.Get(name); got != strings.TrimSpace(setting.Value) {
			return fmt.Errorf("sysctl %s is %q, not %q", name, got, setting.Value)
		}
	}

	differs := func(what string, got, want any) error {
		return fmt.Errorf("interface %s has %s %v, not %v", link.Name, what, got, want)
	}

	switch {
	case s.MAC != nil && link.MAC.String() != s.MAC.String():
		return differs("MAC address", link.MAC, s.MAC)
	case s.Promiscuous && link.Promiscuity == 0:
		return differs("promiscuous mode", false, true)
	case s.MTU != 0 && link.MTU != s.MTU:
		return differs("MTU", link.MTU, s.MTU)
	case s.AllMulticast != nil && link.AllMulticast != *s.AllMulticast:
		return differs("all-multicast mode", link.AllMulticast, *s.AllMulticast)
	case s.TxQueueLength != nil && link.TxQueueLength != *s.TxQueueLength:
		return differs("transmit queue length", link.TxQueueLength, *s.TxQueueLength)
	}

	return nil
}
