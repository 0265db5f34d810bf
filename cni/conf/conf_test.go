package conf_test

import (
	"errors"
	"net/netip"
	"testing"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/trivet-node/trivet/cni/conf"
)

const full = `{"cniVersion":"1.1.0","name":"n","type":"trivet-cni","bridge":"br9","isDefaultGateway":true,"ipMasq":true,"hostRouted":true,
"noMasq":["10.0.0.0/8"],"mtu":1400,"ipam":{"type":"host-local","ranges":[[{"subnet":"10.1.0.0/24","rangeStart":"10.1.0.10"}],[{"subnet":"fd00::/64"}]],"routes":[{"dst":"1.2.3.0/24"}]},
"runtimeConfig":{"portMappings":[{"hostPort":80,"containerPort":8080,"protocol":"TCP","hostIP":"0.0.0.0"},
{"hostPort":0,"containerPort":1}],"mac":"0a:00:00:00:00:01","ips":["10.1.0.20/24"]}}`

func TestParse(t *testing.T) {
	n, err := conf.Parse("trivet-cni", []byte(full), "IgnoreUnknown=1;K8S_POD_NAME=x;IP=10.1.0.21")
	if err != nil {
		t.Fatal(err)
	}

	if !n.IsGateway || n.Bridge != "br9" || n.MTU != 1400 || len(n.NoMasq) != 1 ||
		n.MAC.String() != "0a:00:00:00:00:01" {
		t.Errorf("%+v", n)
	}

	if len(n.Ports) != 1 || n.Ports[0].Protocol != "tcp" || n.Ports[0].HostIP != netip.IPv4Unspecified() {
		t.Errorf("ports %+v", n.Ports)
	}

	if len(n.IPAM.Sets) != 2 || n.IPAM.DataDir != conf.DefaultDataDir || len(n.IPAM.Requested) != 2 ||
		len(n.IPAM.Routes) != 1 {
		t.Errorf("ipam %+v", n.IPAM)
	}

	bare, err := conf.Parse("trivet-cni", []byte(`{"name":"n","type":"bridge"}`), "")
	if err != nil || bare.IPAM != nil || bare.Bridge != "cni0" {
		t.Errorf("%+v, %v", bare, err)
	}
}

func TestWhatIsRefusedIsNamedWithItsCode(t *testing.T) {
	for _, c := range []struct {
		json string
		args string
		code uint
	}{
		{`{`, "", types.ErrDecodingFailure},
		{``, "", types.ErrDecodingFailure},
		{`{"type":"trivet-cni","name":"n","vlan":5}`, "", types.ErrUnsupportedField},
		{`{"type":"trivet-cni","name":"n","ipam":{"type":"dhcp"}}`, "", types.ErrUnsupportedField},
		{`{"type":"trivet-cni","name":"n","ipMasqBackend":"iptables"}`, "", types.ErrUnsupportedField},
		{`{"type":"trivet-cni","name":"n","preserveDefaultVlan":false}`, "", types.ErrUnsupportedField},
		{`{"type":"trivet-cni","name":"n","masqAll":true}`, "", types.ErrUnsupportedField},
		{`{"type":"trivet-cni","name":"n","markMasqBit":13}`, "", types.ErrUnsupportedField},
		{`{"type":"trivet-cni","name":"n","externalSetMarkChain":"KUBE-MARK-MASQ"}`, "",
			types.ErrUnsupportedField},
		{`{"type":"trivet-cni","name":"n","bridge":"a name that is too long"}`, "",
			types.ErrInvalidNetworkConfig},
		{`{"type":"trivet-cni","name":"n","hairpinMode":true,"promiscMode":true}`, "",
			types.ErrInvalidNetworkConfig},
		{`{"type":"trivet-cni","name":"n","ipam":{"type":"host-local"}}`, "", types.ErrInvalidNetworkConfig},
		{`{"type":"trivet-cni","name":"n","ipam":{"type":"host-local","subnet":"10.0.0.0/33"}}`, "",
			types.ErrInvalidNetworkConfig},
		{`{"type":"trivet-cni","name":"n",
			"runtimeConfig":{"portMappings":[{"hostPort":70000,"containerPort":1}]}}`, "",
			types.ErrInvalidNetworkConfig},
		{`{"type":"trivet-cni","name":"n",
			"runtimeConfig":{"portMappings":[{"hostPort":1,"containerPort":1,"protocol":"icmp"}]}}`, "",
			types.ErrInvalidNetworkConfig},
		{`{"type":"trivet-cni","name":"n"}`, "MAC=ff:ff:ff:ff:ff:ff", types.ErrInvalidNetworkConfig},
		{`{"type":"trivet-cni","name":"n"}`, "nonsense", types.ErrInvalidNetworkConfig},
	} {
		_, err := conf.Parse("trivet-cni", []byte(c.json), c.args)
		var coded *types.Error
		if !errors.As(err, &coded) || coded.Code != c.code {
			t.Errorf("%s %s: %v, want code %d", c.json, c.args, err, c.code)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(full), "IP=10.1.0.3")
	f.Add([]byte(`{"type":"bridge","ipam":{"type":"host-local","subnet":"::/0"}}`), "")
	f.Fuzz(func(t *testing.T, data []byte, args string) {
		n, err := conf.Parse("trivet-cni", data, args)
		if (n == nil) == (err == nil) {
			t.Fatalf("%+v, %v", n, err)
		}
	})
}
