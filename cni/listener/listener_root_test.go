package listener

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/trivet-node/trivet/cni/rtnl"
	"github.com/trivet-node/trivet/internal/namespace"
	"github.com/trivet-node/trivet/internal/testenv"
)

// host is a network namespace with loopback up.
func host(t *testing.T) (in func(f func() error)) {
	testenv.Root(t)
	netns := testenv.Netns(t)
	in = func(f func() error) {
		t.Helper()
		if err := namespace.Do(f, netns); err != nil {
			t.Error(err)
		}
	}

	in(func() error {
		c, err := rtnl.Open()
		if err != nil {
			return err
		}

		return errors.Join(c.Must(rtnl.SetUp(1)), c.Close())
	})

	return in
}

func TestPortsThatAProcessListensOnAreRefusedWithItsName(t *testing.T) {
	for _, c := range []struct{ network, address, free, taken string }{
		{"tcp4", "0.0.0.0:10250", "tcp 0.0.0.0:10251", "tcp 127.0.0.1:10250"},
		{"tcp4", "127.0.0.1:10248", "tcp 127.0.0.2:10248", "tcp 0.0.0.0:10248"},
		// A socket on :: takes IPv4 too, unless it is one of IPv6 alone.
		{"tcp", "[::]:10250", "udp 0.0.0.0:10250", "tcp 0.0.0.0:10250"},
		{"tcp6", "[::]:10250", "tcp 0.0.0.0:10250", "tcp [::1]:10250"},
		{"udp4", "127.0.0.1:53", "tcp 127.0.0.1:53", "udp 0.0.0.0:53"},
		{"udp", "[::]:53", "udp [::]:54", "udp 0.0.0.0:53"},
	} {
		t.Run(c.network+" "+c.address, func(t *testing.T) {
			in := host(t)
			in(func() error {
				closer, err := listen(c.network, c.address)
				if err != nil {
					return err
				}
				defer func() { _ = closer() }()

				if err := Refuse([]Port{parsePort(c.free)}); err != nil {
					t.Error(err)
				}

				taken := parsePort(c.taken)
				err = Refuse([]Port{parsePort(c.free), taken})
				self := fmt.Sprintf("%s is taken: process %d (", taken, os.Getpid())
				if err == nil || !strings.Contains(err.Error(), self) {
					t.Errorf("%v, want %s", err, self)
				}

				// Where the kernel does not have the module that answers, /proc says the same.
				found, err := readProc(taken.Protocol)
				if refuse([]Port{taken}, found) == nil {
					t.Errorf("by /proc: %+v", found)
				}

				return err
			})
		})
	}
}

// parsePort parses PROTOCOL ADDRESS:PORT.
func parsePort(text string) Port {
	protocol, address, _ := strings.Cut(text, " ")
	return Port{Protocol: protocol, Address: netip.MustParseAddrPort(address)}
}

func listen(network, address string) (func() error, error) {
	if strings.HasPrefix(network, "udp") {
		c, err := net.ListenPacket(network, address)
		if err != nil {
			return nil, err
		}

		return c.Close, nil
	}

	l, err := net.Listen(network, address)
	if err != nil {
		return nil, err
	}

	return l.Close, nil
}

// A connection does not listen, whatever its own port is.
func TestConnectionsDoNotTakeTheirPort(t *testing.T) {
	in := host(t)
	in(func() error {
		l, err := net.Listen("tcp", "127.0.0.1:80")
		if err != nil {
			return err
		}
		defer func() { _ = l.Close() }()

		for _, network := range []string{"tcp", "udp"} {
			c, err := net.Dial(network, "127.0.0.1:80")
			if err != nil {
				return err
			}
			defer func() { _ = c.Close() }()

			own := netip.MustParseAddrPort(c.LocalAddr().String())
			if err := Refuse([]Port{{Protocol: network, Address: own}}); err != nil {
				t.Error(err)
			}
		}

		return nil
	})
}
