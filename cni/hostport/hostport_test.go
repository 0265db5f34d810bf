package hostport

import (
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/trivet-node/trivet/cni/conf"
	"github.com/trivet-node/trivet/cni/hostnat"
	"github.com/trivet-node/trivet/cni/ipam"
)

func owner(id string) ipam.Owner { return ipam.Owner{ContainerID: id, IfName: "eth0"} }

func read(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func addresses(texts ...string) (all []netip.Addr) {
	for _, t := range texts {
		all = append(all, netip.MustParseAddr(t))
	}
	return all
}

func TestAHostPortLeadsToThePodsFirstAddressOfEachFamily(t *testing.T) {
	both := addresses("10.1.0.2", "10.2.0.2", "fd01::2", "fd02::2")
	for name, c := range map[string]struct {
		pod    []netip.Addr
		hostIP string
		// want are the host's and the pod's address of each port.
		want []string
	}{
		"all addresses":         {both, "", []string{"* to 10.1.0.2", "* to fd01::2"}},
		"all of IPv4":           {both, "0.0.0.0", []string{"* to 10.1.0.2"}},
		"all of IPv6":           {both, "::", []string{"* to fd01::2"}},
		"one address":           {both, "192.0.2.1", []string{"192.0.2.1 to 10.1.0.2"}},
		"one address of IPv6":   {both, "2001:db8::1", []string{"2001:db8::1 to fd01::2"}},
		"a pod with IPv6 alone": {addresses("fd01::2"), "", []string{"* to fd01::2"}},
		"no address of it":      {addresses("fd01::2"), "0.0.0.0", nil},
		"a pod without any":     {nil, "", nil},
	} {
		wanted := conf.Port{HostPort: 80, ContainerPort: 8080, Protocol: "tcp"}
		if c.hostIP != "" {
			wanted.HostIP = netip.MustParseAddr(c.hostIP)
		}

		var got []string
		for _, p := range Pair([]conf.Port{wanted}, c.pod) {
			host := "*"
			if p.HostIP.IsValid() {
				host = p.HostIP.String()
			}

			got = append(got, host+" to "+p.Pod.Addr().String())
			if p.HostPort != 80 || p.Pod.Port() != 8080 || p.Protocol != "tcp" {
				t.Errorf("%s: %+v", name, p)
			}
		}

		if d := cmp.Diff(c.want, got); d != "" {
			t.Errorf("%s: %s", name, d)
		}
	}
}

func TestListenersOfTheFamilyAreAskedFor(t *testing.T) {
	for _, c := range []struct {
		port hostnat.Port
		want string
	}{
		{
			hostnat.Port{HostPort: 80, Protocol: "tcp", Pod: netip.MustParseAddrPort("10.1.0.2:1")},
			"host port 0.0.0.0:80/tcp",
		},
		{
			hostnat.Port{HostPort: 80, Protocol: "udp", Pod: netip.MustParseAddrPort("[fd01::2]:1")},
			"host port [::]:80/udp",
		},
		{
			hostnat.Port{
				HostIP:   netip.MustParseAddr("192.0.2.1"),
				HostPort: 80,
				Protocol: "tcp",
				Pod:      netip.MustParseAddrPort("10.1.0.2:1"),
			},
			"host port 192.0.2.1:80/tcp",
		},
	} {

		got := listenedOn([]hostnat.Port{c.port})
		if len(got) != 1 || got[0].String() != c.want {
			t.Errorf("%s: %v", c.port, got)
		}
	}
}

// trivet-netd and the plugin of other versions read each other's records.
func TestTheFormatOfARecordStays(t *testing.T) {
	s := store{dir: t.TempDir()}
	r := record{
		Owner: owner("a"),
		Ports: []hostnat.Port{{HostPort: 80, Protocol: "tcp", Pod: netip.MustParseAddrPort("10.1.0.2:8080")}},
	}
	if err := s.write(r); err != nil {
		t.Fatal(err)
	}

	const want = `{"owner":{"ContainerID":"a","IfName":"eth0"},` +
		`"ports":[{"HostIP":"","HostPort":80,"Protocol":"tcp","Pod":"10.1.0.2:8080"}]}`
	if got := read(t, s.file(r.Owner)); got != want {
		t.Errorf("record %s", got)
	}

	const name = "49075c1f2373fb670c1546ce22738cc7"
	if got := filepath.Base(s.file(r.Owner)); got != name {
		t.Errorf("the record has the name %s", got)
	}
}
