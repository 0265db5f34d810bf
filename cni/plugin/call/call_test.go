package call_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/google/go-cmp/cmp"

	"github.com/trivet-node/trivet/cni/conf"
	"github.com/trivet-node/trivet/cni/plugin/call"
	"github.com/trivet-node/trivet/cni/prefix"
)

func newCall(t *testing.T, stdin string) *call.Call {
	t.Helper()
	h, err := conf.ReadHead([]byte(stdin))
	if err != nil {
		t.Fatal(err)
	}
	return call.New(h, call.Request{ContainerID: "a", IfName: "eth0", Stdin: []byte(stdin)})
}

func TestPrevResultIsReadInItsVersion(t *testing.T) {
	for _, stdin := range []string{
		`{"cniVersion":"0.2.0","name":"n","prevResult":{"ip4":{"ip":"10.1.0.2/24"}}}`,
		`{"cniVersion":"0.4.0","prevResult":{"cniVersion":"0.4.0",
			"ips":[{"version":"4","address":"10.1.0.2/24"}]}}`,
		`{"cniVersion":"1.1.0","prevResult":{"cniVersion":"1.1.0",
			"ips":[{"address":"10.1.0.2/24"}]}}`,
	} {
		c := newCall(t, stdin)
		if err := c.ReadPrevious(); err != nil {
			t.Errorf("%s: %v", stdin, err)
			continue
		}

		ips := c.PreviousIPs()
		if len(ips) != 1 || ips[0].Address.String() != "10.1.0.2/24" {
			t.Errorf("%s: %+v", stdin, ips)
		}
	}

	for _, none := range []string{`{"cniVersion":"1.1.0"}`, `{"cniVersion":"1.1.0","prevResult":null}`} {
		c := newCall(t, none)
		if err := c.ReadPrevious(); err != nil || c.Previous != nil || c.PreviousInterface() != nil {
			t.Errorf("%s: %+v, %v", none, c.Previous, err)
		}
	}

	for _, bad := range []string{`5`, `"text"`, `{"ips":5,"cniVersion":"1.1.0"}`} {
		c := newCall(t, `{"cniVersion":"1.1.0","prevResult":`+bad+`}`)
		if err := c.ReadPrevious(); !errors.Is(err, conf.ErrDecode) {
			t.Errorf("%s: %v", bad, err)
		}
	}
}

func TestPrevResultWithNullInAListIsRefusedByName(t *testing.T) {
	for _, c := range []struct{ version, previous, want string }{
		{"1.1.0", `{"interfaces":[null]}`, "interfaces[0] is null"},
		{"1.1.0", `{"interfaces":[{"name":"a"},null]}`, "interfaces[1] is null"},
		{"1.0.0", `{"ips":[null]}`, "ips[0] is null"},
		{"0.4.0", `{"ips":[null]}`, "ips[0] is null"},
		{"0.3.1", `{"interfaces":[null]}`, "interfaces[0] is null"},
		{"1.1.0", `{"Routes":[null]}`, "routes[0] is null"},
		{"0.4.0", `{"routes":[null]}`, "routes[0] is null"},
		{"0.2.0", `{"ip4":{"ip":"10.1.0.2/24","routes":[null]}}`, "ip4.routes[0] is null"},
		{"0.1.0", `{"ip6":{"ip":"fd00::2/64","routes":[{"dst":"::/0"},null]}}`, "ip6.routes[1] is null"},
		{"1.1.0", `{"ips":[{"address":null}]}`, "prevResult: "},
		{"1.1.0", `{"ips":[5]}`, "prevResult: "},
	} {
		stdin := `{"cniVersion":"` + c.version + `","name":"n","prevResult":` + c.previous + `}`
		err := newCall(t, stdin).ReadPrevious()
		if !errors.Is(err, conf.ErrDecode) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %s", stdin, err, c.want)
		}
	}
}

// What is null elsewhere is as if it was absent.
func TestPrevResultMayHaveNullOutsideOfLists(t *testing.T) {
	for _, version := range []string{"0.2.0", "0.4.0", "1.1.0"} {
		c := newCall(t, `{"cniVersion":"`+version+`","prevResult":{"dns":null,"ips":null,"routes":null,
			"ip4":null,"interfaces":[{"name":"eth0","sandbox":null,"mac":null,"mtu":null}]}}`)
		if version != "0.2.0" {
			c.PrevResult = []byte(`{"dns":null,"interfaces":[{"name":"eth0","sandbox":null,"mac":null}],
				"ips":[{"version":"4","address":"10.1.0.2/24","gateway":null,"interface":null}],
				"routes":[{"dst":"10.0.0.0/8","gw":null}]}`)
		}

		var out bytes.Buffer
		c.Out = &out
		err := c.ReadPrevious()
		if err == nil {
			err = c.Print(c.Previous)
		}
		// Without an address, the library prints no result of version 0.2.
		if err != nil && version != "0.2.0" || c.PreviousInterface() != nil || c.PreviousMTU("eth0") != 0 {
			t.Errorf("version %s: %+v, %v", version, c.Previous, err)
		}
	}
}

func TestOnlyTheOwnInterfaceOfPrevResultCounts(t *testing.T) {
	c := newCall(t, `{"cniVersion":"1.1.0","prevResult":{"cniVersion":"1.1.0",
		"interfaces":[{"name":"eth0"},{"name":"eth1","sandbox":"/x"},
		{"name":"eth0","sandbox":"/x","mtu":1300}],
		"ips":[{"address":"10.1.0.1/24","interface":0},{"address":"10.1.0.2/24","interface":1},
		{"address":"10.1.0.3/24","interface":2},{"address":"10.1.0.4/24"},
		{"address":"10.1.0.5/24","interface":7},{"address":"10.1.0.6/24","interface":-1}]}}`)
	if err := c.ReadPrevious(); err != nil {
		t.Fatal(err)
	}
	if i := c.PreviousInterface(); i == nil || i.Mtu != 1300 {
		t.Errorf("interface %+v", i)
	}

	var got []string
	for _, ip := range c.PreviousIPs() {
		got = append(got, ip.Address.String())
	}

	if d := cmp.Diff([]string{"10.1.0.3/24", "10.1.0.4/24"}, got); d != "" {
		t.Error(d)
	}
}

func TestTheAnswerHasTheVersionOfTheConfiguration(t *testing.T) {
	for version, want := range map[string]string{
		"0.2.0": `"ip4": {`,
		"0.4.0": `"version": "4"`,
		"1.1.0": `"address": "10.1.0.2/24"`,
	} {
		c := newCall(t, `{"cniVersion":"`+version+`"}`)
		var out bytes.Buffer
		c.Out = &out
		result := call.NewResult()
		address, err := types.ParseCIDR("10.1.0.2/24")
		if err != nil {
			t.Fatal(err)
		}

		result.IPs = []*types100.IPConfig{{Address: *address}}
		if err := c.Print(result); err != nil || !strings.Contains(out.String(), want) {
			t.Errorf("%s: %s, %v", version, out.String(), err)
		}
	}
}

func TestARouteKeepsWhatItHas(t *testing.T) {
	dst, err := types.ParseCIDR("10.8.0.0/16")
	if err != nil {
		t.Fatal(err)
	}

	want := types.Route{
		Dst:      *dst,
		GW:       []byte{10, 1, 0, 1},
		MTU:      1300,
		AdvMSS:   1200,
		Priority: 5,
		Table:    new(7),
		Scope:    new(253),
	}

	r, err := call.ParseRoute(want)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want.String(), call.FormatRoute(r).String()); d != "" {
		t.Error(d)
	}
	if _, err := call.ParseRoute(types.Route{}); err == nil {
		t.Error("a route without destination")
	}

	bare, err := call.ParseRoute(types.Route{Dst: prefix.IPNet(prefix.Default4)})
	if err != nil || bare.Gateway.IsValid() || bare.Table != 0 || call.FormatRoute(bare).Table != nil {
		t.Errorf("%+v, %v", bare, err)
	}
}

func TestTheOwnNamespaceIsRecognised(t *testing.T) {
	c := newCall(t, `{}`)
	c.Netns = "/proc/self/ns/net"
	if own, err := c.InOwnNamespace(); !own || err != nil {
		t.Errorf("%v, %v", own, err)
	}

	c.Netns = "/proc/self/ns/mnt"
	if own, err := c.InOwnNamespace(); own || err != nil {
		t.Errorf("another one: %v, %v", own, err)
	}

	c.Netns = "/does/not/exist"
	if _, err := c.InOwnNamespace(); err == nil {
		t.Error("one that does not exist")
	}
}
