package conf_test

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/trivet-node/trivet/cni/bridge"
	"github.com/trivet-node/trivet/cni/conf"
	"github.com/trivet-node/trivet/cni/hostnat"
	"github.com/trivet-node/trivet/cni/rtnl"
)

const full = `{
	"cniVersion": "1.1.0",
	"name": "n",
	"type": "trivet-cni",
	"bridge": "br9",
	"isDefaultGateway": true,
	"forceAddress": true,
	"hairpinMode": true,
	"portIsolation": true,
	"ipMasq": true,
	"hostRouted": true,
	"noMasq": ["10.9.8.7/8"],
	"mtu": 1400,
	"snat": false,
	"ipam": {
		"type": "host-local",
		"ranges": [[{"subnet": "10.1.0.0/24", "rangeStart": "10.1.0.10"}], [{"subnet": "fd00::/64"}]],
		"routes": [{"dst": "1.2.3.0/24"}]
	},
	"runtimeConfig": {
		"portMappings": [
			{"hostPort": 80, "containerPort": 8080, "protocol": "TCP", "hostIP": "0.0.0.0"},
			{"hostPort": 0, "containerPort": 1}
		],
		"mac": "0a:00:00:00:00:01",
		"ips": ["10.1.0.20/24"]
	}
}`

// read reads the configuration of trivet-cni.
func read(stdin, args string) (*conf.Network, error) {
	return conf.ReadNetwork([]byte(stdin), conf.Options{Args: args, HostPorts: true})
}

func TestEveryKeyEndsWhereItIsUsed(t *testing.T) {
	n, err := read(full, "IgnoreUnknown=1;K8S_POD_NAME=x;IP=10.1.0.21")
	if err != nil {
		t.Fatal(err)
	}

	wantBridge := bridge.Config{
		Network:      "n",
		Name:         "br9",
		MTU:          1400,
		IsGateway:    true,
		ForceAddress: true,
		Port:         rtnl.Port{Hairpin: true, Isolated: true},
		HostRouted:   true,
	}
	if d := cmp.Diff(wantBridge, n.Bridge); d != "" {
		t.Errorf("bridge: %s", d)
	}

	subnets := []string{"10.1.0.0/24", "fd00::/64"}
	if got := fmt.Sprint(n.NAT.Subnets); got != fmt.Sprint(subnets) {
		t.Errorf("subnets that are not masqueraded: %s", got)
	}

	n.NAT.Subnets = nil
	wantNAT := hostnat.Config{
		Network:    "n",
		Bridge:     "br9",
		Masquerade: true,
		NoMasq:     []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")},
		HostRouted: true,
		Ports:      true,
	}
	if got, want := fmt.Sprintf("%+v", n.NAT), fmt.Sprintf("%+v", wantNAT); got != want {
		t.Errorf("NAT is %s, want %s", got, want)
	}

	if n.Runtime.MAC.String() != "0a:00:00:00:00:01" || len(n.Runtime.Ports) != 1 {
		t.Errorf("runtime %+v", n.Runtime)
	}
	if p := n.Runtime.Ports[0]; p.Protocol != "tcp" || p.HostIP != netip.IPv4Unspecified() {
		t.Errorf("port %+v", p)
	}

	i := n.IPAM
	if len(i.Sets) != 2 || i.Pool.DataDir != "/var/lib/cni/networks" || i.Pool.Network != "n" ||
		len(i.Requested) != 2 || len(i.Routes) != 1 || !n.DefaultGateway {
		t.Errorf("ipam %+v", i)
	}
}

func TestANetworkOnLayer2HasUpstreamsDefaults(t *testing.T) {
	n, err := conf.ReadNetwork([]byte(`{"name":"n","type":"bridge"}`), conf.Options{})
	if err != nil || n.IPAM != nil || n.Bridge.Name != "cni0" || !n.NAT.SNAT || n.NAT.Ports {
		t.Errorf("%+v, %v", n, err)
	}
}

func TestRulesAreOfTheInterfaceThatPodsAreRoutedBy(t *testing.T) {
	for keys, want := range map[string]string{
		`"isGateway":true`:                 "br9",
		`"vlan":100`:                       "br9",
		`"vlan":100,"isGateway":true`:      "br9.100",
		`"vlan":7,"isDefaultGateway":true`: "br9.7",
	} {
		n, err := read(`{"name":"n","type":"trivet-cni","bridge":"br9","ipMasq":true,`+keys+`}`, "")
		if err != nil || n.NAT.Bridge != want {
			t.Errorf("%s: %+v, %v, want %s", keys, n, err, want)
		}
	}
}

// upstream's bridge leaves host ports to portmap in the chain.
func TestHostPortsAreReadOnlyByWhoPublishesThem(t *testing.T) {
	n, err := conf.ReadNetwork([]byte(full), conf.Options{})
	if err != nil || len(n.Runtime.Ports) != 0 || n.NAT.Ports {
		t.Errorf("%+v, %v", n, err)
	}
}

// upstream's bridge leaves keeping bridges apart to firewall in the chain.
func TestTheIngressPolicyIsThatOfTheOneEntry(t *testing.T) {
	const keys = `{"name":"n","type":"x","ingressPolicy":"same-bridge"}`
	for _, o := range []conf.Options{{}, {HostPorts: true}} {
		n, err := conf.ReadNetwork([]byte(keys), o)
		if err != nil || n.Ingress.IsOpen() == o.HostPorts {
			t.Errorf("%+v: %+v, %v", o, n, err)
		}
	}
}

// The kinds of what is refused.
const (
	unsupported = "not supported"
	undecodable = "cannot be decoded"
	invalid     = "invalid network configuration"
)

// refused are configurations that are refused, with the kind and what the error names.
var refused = []struct{ keys, args, kind, names string }{
	{`"mtu":"many"`, "", undecodable, "mtu"},
	{`"ipMasqBackend":"iptables"`, "", unsupported, "ipMasqBackend"},
	{`"backend":"iptables"`, "", unsupported, "backend"},
	{`"conditionsV4":["x"]`, "", unsupported, "conditionsV4"},
	{`"conditionsV6":["x"]`, "", unsupported, "conditionsV6"},
	{`"masqAll":true`, "", unsupported, "masqAll"},
	{`"markMasqBit":13`, "", unsupported, "markMasqBit"},
	{`"externalSetMarkChain":"KUBE-MARK-MASQ"`, "", unsupported, "externalSetMarkChain"},
	{`"backend":"firewalld"`, "", unsupported, "backend"},
	{`"iptablesAdminChainName":"ADMIN"`, "", unsupported, "iptablesAdminChainName"},
	{`"firewalldZone":"trusted"`, "", unsupported, "firewalldZone"},
	{`"ingressPolicy":"closed"`, "", invalid, "ingressPolicy \"closed\""},
	{`"networkPolicy":true`, "", invalid, "hostRouted"},
	{`"bridge":"a name that is too long"`, "", invalid, "a name that is too long"},
	{`"bridge":".."`, "", invalid, ".."},
	{`"hairpinMode":true,"promiscMode":true`, "", invalid, "promiscMode"},
	{`"mtu":70000`, "", invalid, "70000"},
	{`"ipam":{"type":"bridge"}`, "", invalid, "bridge is not a plugin that allocates"},
	{`"vlan":4095`, "", invalid, "4095"},
	{`"vlan":100,"isGateway":true,"bridge":"br-of-14-bytes"`, "", invalid, "br-of-14-bytes.100"},
	{`"vlanTrunk":[{"minID":5}]`, "", invalid, "minID and maxID"},
	{`"vlanTrunk":[{"minID":5,"maxID":4}]`, "", invalid, "5 to 4"},
	{`"vlanTrunk":[{"id":0}]`, "", invalid, "id 0"},
	{`"ipMasqBackend":"pf"`, "", invalid, "pf"},
	{`"disableContainerInterface":true,"ipam":{"type":"dhcp"}`, "", invalid, "disableContainerInterface"},
	{`"noMasq":["x"]`, "", invalid, "noMasq"},
	{`"ipam":{"type":"host-local"}`, "", invalid, "neither subnet nor ranges"},
	{`"ipam":{"type":"host-local","subnet":"10.0.0.0/33"}`, "", invalid, "10.0.0.0/33"},
	{`"ipam":{"type":"host-local","subnet":"10.0.0.0/24","gateway":"x"}`, "", invalid, `"x"`},
	{`"ipam":{"type":"host-local","ranges":[[]]}`, "", invalid, "range set 0 is empty"},
	{
		`"runtimeConfig":{"ips":["x"]},"ipam":{"type":"host-local","subnet":"10.0.0.0/24"}`,
		"",
		invalid,
		`"x"`,
	},
	{`"runtimeConfig":{"portMappings":[{"hostPort":70000,"containerPort":1}]}`, "", invalid, "70000"},
	{`"runtimeConfig":{"portMappings":[{"hostPort":1}]}`, "", invalid, "ports are 1 to 65535"},
	{
		`"runtimeConfig":{"portMappings":[{"hostPort":1,"containerPort":1,"protocol":"icmp"}]}`,
		"",
		invalid,
		"icmp",
	},
	{
		`"runtimeConfig":{"portMappings":[{"hostPort":1,"containerPort":1,"hostIP":"x"}]}`,
		"",
		invalid,
		"hostIP",
	},
	{`"mtu":0`, "MAC=ff:ff:ff:ff:ff:ff", invalid, "ff:ff:ff:ff:ff:ff"},
	{`"mtu":0`, "nonsense", invalid, "nonsense"},
}

func TestThePodIsThatOfTheRuntime(t *testing.T) {
	const args = "K8S_POD_NAMESPACE=ns;K8S_POD_NAME=p;K8S_POD_UID=u;K8S_POD_INFRA_CONTAINER_ID=c"
	for keys, want := range map[string]bool{
		`"hostRouted":true,"networkPolicy":true`: true,
		`"hostRouted":true`:                      false,
	} {
		n, err := read(`{"name":"n","type":"trivet-cni",`+keys+`}`, args)
		pod := conf.Pod{Namespace: "ns", Name: "p", UID: "u"}
		if err != nil || n.Policy != want || n.Runtime.Pod != pod {
			t.Errorf("%s: %+v, %v", keys, n, err)
		}
	}
}

func TestWhatIsRefusedIsNamed(t *testing.T) {
	kinds := map[string]error{
		unsupported: conf.ErrUnsupported,
		undecodable: conf.ErrDecode,
		invalid:     conf.ErrInvalid,
	}

	for _, c := range refused {
		_, err := read(`{"name":"n","type":"trivet-cni",`+c.keys+`}`, c.args)
		if !errors.Is(err, kinds[c.kind]) || !strings.Contains(err.Error(), c.names) {
			t.Errorf("%s %s: %v, want %s with %s", c.keys, c.args, err, c.kind, c.names)
		}
	}
}

func TestUpstreamsDefaultsAreNotRefused(t *testing.T) {
	for _, keys := range []string{
		`"vlan":0`,
		`"preserveDefaultVlan":true`,
		`"ipMasqBackend":"nftables"`,
		`"backend":""`,
		`"unknown":{"a":1}`,
	} {
		if _, err := read(`{"name":"n","type":"trivet-cni",`+keys+`}`, ""); err != nil {
			t.Errorf("%s: %v", keys, err)
		}
	}
}

func TestTheMostSpecificMACIsTaken(t *testing.T) {
	const (
		runtime = `"runtimeConfig":{"mac":"0a:00:00:00:00:01"}`
		args    = `"args":{"cni":{"mac":"0a:00:00:00:00:02"}}`
		cniArgs = "MAC=0a:00:00:00:00:03"
	)

	for keys, want := range map[string]string{
		`"mtu":0`:            "0a:00:00:00:00:03",
		args:                 "0a:00:00:00:00:02",
		args + `,` + runtime: "0a:00:00:00:00:01",
	} {
		n, err := read(`{"name":"n",`+keys+`}`, cniArgs)
		if err != nil || n.Runtime.MAC.String() != want {
			t.Errorf("%s: %v, %v", keys, n, err)
		}
	}
}

func TestUnknownKeysOfCNIArgsAreAnErrorUnlessTheyAreToBeIgnored(t *testing.T) {
	const stdin = `{"name":"n","type":"bridge","ipam":{"type":"host-local","subnet":"10.1.0.0/16"}}`
	for args, unknown := range map[string]string{
		"ip=10.1.1.5":                       "ip",
		"IgnoreUnknown=false;ip=10.1.1.5":   "ip",
		"IgnoreUnknown=1;ip=10.1.1.5":       "",
		"ip=10.1.1.5;IgnoreUnknown=true":    "",
		"K8S_POD_NAME=a;IP=10.1.1.5":        "",
		"IgnoreUnknown=perhaps;K8S_POD_UID": "CNI_ARGS",
	} {
		_, err := read(stdin, args)
		if (err != nil) != (unknown != "") || err != nil && !strings.Contains(err.Error(), unknown) {
			t.Errorf("%s: %v", args, err)
		}
	}
}

func FuzzReadNetwork(f *testing.F) {
	f.Add([]byte(full), "IP=10.1.0.3")
	f.Add([]byte(`{"type":"bridge","ipam":{"type":"host-local","subnet":"::/0"}}`), "")
	f.Fuzz(func(t *testing.T, data []byte, args string) {
		n, err := conf.ReadNetwork(data, conf.Options{Args: args, HostPorts: true})
		if err == nil {
			if n.Bridge.Name == "" || n.IPAM != nil && len(n.IPAM.Sets) == 0 {
				t.Fatalf("%+v", n)
			}

			return
		}

		for _, kind := range []error{conf.ErrDecode, conf.ErrInvalid, conf.ErrUnsupported} {
			if errors.Is(err, kind) {
				return
			}
		}

		t.Fatalf("an error of no kind: %v", err)
	})
}
