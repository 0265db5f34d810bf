package listener

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
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
	for _, c := range []struct {
		network, address string // of the process
		wanted           string // PROTOCOL ADDRESS
		refused          bool
	}{
		{"tcp4", "0.0.0.0:10250", "tcp 0.0.0.0:10250", true},
		{"tcp4", "0.0.0.0:10250", "tcp 127.0.0.1:10250", true},
		{"tcp4", "0.0.0.0:10250", "udp 0.0.0.0:10250", false},
		{"tcp4", "0.0.0.0:10250", "tcp 0.0.0.0:10251", false},
		{"tcp4", "0.0.0.0:10250", "tcp [::]:10250", false},
		{"tcp4", "127.0.0.1:10248", "tcp 0.0.0.0:10248", true},
		{"tcp4", "127.0.0.1:10248", "tcp 127.0.0.2:10248", false},
		{"tcp", "[::]:10250", "tcp 0.0.0.0:10250", true}, // of both families
		{"tcp", "[::]:10250", "tcp [::1]:10250", true},
		{"tcp6", "[::]:10250", "tcp 0.0.0.0:10250", false}, // of IPv6 alone
		{"tcp6", "[::]:10250", "tcp [::]:10250", true},
		{"udp4", "127.0.0.1:53", "udp 0.0.0.0:53", true},
		{"udp", "[::]:53", "udp 0.0.0.0:53", true},
	} {
		t.Run(fmt.Sprintf("%s %s for %s", c.network, c.address, c.wanted), func(t *testing.T) {
			in := host(t)
			in(func() error {
				closer, err := listen(c.network, c.address)
				if err != nil {
					return err
				}
				defer func() { _ = closer() }()

				protocol, address, _ := strings.Cut(c.wanted, " ")
				p := Port{Protocol: protocol, Address: netip.MustParseAddrPort(address)}
				err = Refuse([]Port{p})
				self := fmt.Sprintf("process %d (", os.Getpid())
				if (err != nil) != c.refused || err != nil && !strings.Contains(err.Error(), self) {
					t.Errorf("%v, want refused %v", err, c.refused)
				}

				// /proc says the same, but for what it does not tell.
				found, err := read(protocol)
				if err != nil {
					return err
				}

				refused := false
				for _, s := range found {
					refused = refused || s.meets(p)
				}

				if refused != c.refused && c.network != "tcp6" {
					t.Errorf("by /proc %v: %+v", refused, found)
				}

				return nil
			})
		})
	}
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

// A connection is nobody who listens, whatever its own port is.
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

func TestEndpointsOfSCTPAreReadFromProc(t *testing.T) {
	line := " ffff88017e0a0200 ffff880296593480 2   10  29    11165  200  299761689 10.0.0.102 fd00::7"
	found := parseSCTP(strings.Fields(line))
	if len(found) != 2 || found[0].address.String() != "10.0.0.102:11165" ||
		found[1].address.String() != "[fd00::7]:11165" ||
		found[0].inode != 299761689 || found[0].uid != 200 {
		t.Errorf("%+v", found)
	}
	head := " ENDPT     SOCK   STY SST HBKT LPORT   UID INODE LADDRS"
	if found := parseSCTP(strings.Fields(head)); found != nil {
		t.Errorf("the head of the table: %+v", found)
	}
}

func FuzzProc(f *testing.F) {
	if data, err := os.ReadFile(filepath.Clean("/proc/net/tcp6")); err == nil {
		for line := range strings.Lines(string(data)) {
			f.Add(line)
		}
	}

	f.Add("  0: 0100007F:0050 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 12345 1")
	f.Fuzz(func(t *testing.T, line string) {
		for _, s := range append(parseInet(strings.Fields(line)), parseSCTP(strings.Fields(line))...) {
			if !s.address.IsValid() {
				t.Fatalf("%q: %+v", line, s)
			}
		}
	})
}

func FuzzDiag(f *testing.F) {
	f.Add(make([]byte, answerSize))
	f.Fuzz(func(t *testing.T, body []byte) {
		if s, ok := parse(body); ok && !s.address.IsValid() {
			t.Fatalf("%x: %+v", body, s)
		}
	})
}

func BenchmarkRefuse(b *testing.B) {
	ports := []Port{
		{Protocol: "tcp", Address: netip.MustParseAddrPort("0.0.0.0:61")},
		{Protocol: "udp", Address: netip.MustParseAddrPort("0.0.0.0:61")},
	}
	for b.Loop() {
		if err := Refuse(ports); err != nil {
			b.Fatal(err)
		}
	}
}
