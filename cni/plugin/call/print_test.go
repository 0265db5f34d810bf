package call_test

import (
	"bytes"
	"net"
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/google/go-cmp/cmp"

	"github.com/trivet-node/trivet/cni/conf"
	"github.com/trivet-node/trivet/cni/plugin/call"
)

func network(text string) net.IPNet {
	ip, n, _ := net.ParseCIDR(text)
	n.IP = ip
	return *n
}

func TestAResultIsPrintedAsTheLibraryPrintsIt(t *testing.T) {
	full := &types100.Result{
		Interfaces: []*types100.Interface{
			{Name: "br0", Mac: "0a:58:00:00:00:01", Mtu: 1500},
			{Name: "eth0", Sandbox: "/run/netns/a", SocketPath: "/s", PciID: "0000:00:01.0"},
			{},
		},
		IPs: []*types100.IPConfig{
			{Interface: new(1), Address: network("10.1.0.2/24"), Gateway: net.ParseIP("10.1.0.1")},
			{Interface: new(0), Address: network("fd00::2/64"), Gateway: net.ParseIP("fd00::1")},
			{Address: network("10.1.0.3/32")},
		},
		Routes: []*types.Route{
			{Dst: network("0.0.0.0/0"), GW: net.ParseIP("10.1.0.1")},
			{Dst: network("::/0"), MTU: 1400, AdvMSS: 1300, Priority: 7, Table: new(100), Scope: new(0)},
		},
		DNS: types.DNS{
			Nameservers: []string{"10.1.0.1", "<&>\u2028"},
			Domain:      "example.org",
			Search:      []string{"a", "b"},
			Options:     []string{"ndots:5"},
		},
	}

	for _, result := range []*types100.Result{
		full,
		{},
		{DNS: types.DNS{Domain: "d"}},
		{Routes: []*types.Route{{Dst: network("10.0.0.0/8")}}},
	} {
		for _, version := range []string{"0.2.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"} {
			var got, want bytes.Buffer
			c := &call.Call{Head: conf.Head{CNIVersion: version}, Out: &got}
			err := c.Print(result)

			versioned, wantErr := result.GetAsVersion(version)
			if wantErr == nil {
				wantErr = versioned.PrintTo(&want)
			}

			// The library writes for 1.0.0 what came with 1.1.0.
			if version == "1.0.0" {
				text := strings.Replace(want.String(), "            \"mtu\": 1500,\n", "", 1)
				want = *bytes.NewBufferString(text)
			}

			if (err == nil) != (wantErr == nil) {
				t.Errorf("version %s: %v, the library says %v", version, err, wantErr)
			}
			if diff := cmp.Diff(want.String(), got.String()); diff != "" {
				t.Errorf("version %s: %s", version, diff)
			}
		}
	}
}
