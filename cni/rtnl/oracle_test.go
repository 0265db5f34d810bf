package rtnl_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/trivet-node/trivet/cni/rtnl"
)

// Reading needs no root, so this looks at whatever the machine has, lo at least. Interfaces of other
// processes come and go, so it tries a few times.
func TestLinksAreThoseThatAnotherReaderSees(t *testing.T) {
	c, err := rtnl.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()

	var ours, theirs []string
	for range 10 {
		ours = describeOurs(t, c)
		theirs = describeTheirs(t)
		if slices.Equal(ours, theirs) {
			return
		}
	}

	t.Errorf("read %q, want %q", ours, theirs)
}

const linkFormat = "%d %s %q kind %s mac %s mtu %d master %d up %v group %d"

func describeOurs(t *testing.T, c *rtnl.Conn) (lines []string) {
	t.Helper()
	links, err := c.Links()
	if err != nil {
		t.Fatal(err)
	}

	for _, l := range links {
		mac := l.MAC.String()
		// The other reader leaves it out.
		if mac == "00:00:00:00:00:00" {
			mac = ""
		}

		lines = append(lines, fmt.Sprintf(
			linkFormat,
			l.Index,
			l.Name,
			l.Alias,
			l.Kind,
			mac,
			l.MTU,
			l.Master,
			l.Up,
			l.Group,
		))
	}

	slices.Sort(lines)
	return lines
}

func describeTheirs(t *testing.T) (lines []string) {
	t.Helper()
	links, err := netlink.LinkList()
	if err != nil {
		t.Fatal(err)
	}

	for _, l := range links {
		kind := l.Type()
		// What they call an interface of no kind.
		if kind == "device" {
			kind = ""
		}

		a := l.Attrs()
		lines = append(lines, fmt.Sprintf(
			linkFormat,
			a.Index,
			a.Name,
			a.Alias,
			kind,
			a.HardwareAddr,
			a.MTU,
			a.MasterIndex,
			a.RawFlags&1 != 0,
			a.Group,
		))
	}

	slices.Sort(lines)
	return lines
}
