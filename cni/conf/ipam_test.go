package conf_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/google/go-cmp/cmp"

	"github.com/trivet-node/trivet/cni/conf"
)

// The other keys of the configuration belong to the main plugin.
func TestDelegatedIPAMReadsItsOwnKeysOnly(t *testing.T) {
	const stdin = `{"cniVersion":"1.0.0","name":"n","type":"macvlan","vlan":5,
		"bridge":{"a":1},"mtu":"9000","ipMasqBackend":"iptables","macspoofchk":true,
		"runtimeConfig":{"mac":"x","portMappings":[{"hostPort":1}],"ips":["10.0.0.9"]},
		"ipam":{"type":"host-local","subnet":"10.0.0.0/24"}}`
	i, err := conf.ReadIPAM([]byte(stdin), "IgnoreUnknown=1;K8S_POD_NAME=x;OTHER=1")
	if err != nil || len(i.Sets) != 1 || len(i.Requested) != 1 || i.Pool.Network != "n" {
		t.Errorf("%+v, %v", i, err)
	}
}

func TestAConfigurationWithoutIPAMHasNone(t *testing.T) {
	i, err := conf.ReadIPAM([]byte(`{"cniVersion":"1.0.0","name":"n","type":"macvlan"}`), "nonsense")
	if i != nil || err != nil {
		t.Errorf("%+v, %v", i, err)
	}
}

func TestRangesThatTheRuntimeAsksForComeFirstAndAreNobodyElses(t *testing.T) {
	const stdin = `{"name":"n","runtimeConfig":{"ipRanges":[[{"subnet":"10.9.0.0/24"}]]},
		"ipam":{"type":"host-local","subnet":"10.1.0.0/24","ranges":[[{"subnet":"10.2.0.0/24"}]]}}`
	i, err := conf.ReadIPAM([]byte(stdin), "")
	if err == nil {
		t.Fatalf("two IPv4 addresses before version 0.3.0: %+v", i)
	}

	i, err = conf.ReadIPAM([]byte(`{"cniVersion":"1.1.0",`+stdin[1:]), "")
	if err != nil {
		t.Fatal(err)
	}

	var sets, subnets []string
	for _, s := range i.Sets {
		sets = append(sets, s[0].Subnet.String())
	}

	for _, s := range i.Subnets {
		subnets = append(subnets, s.String())
	}

	if d := cmp.Diff([]string{"10.9.0.0/24", "10.1.0.0/24", "10.2.0.0/24"}, sets); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([]string{"10.1.0.0/24", "10.2.0.0/24"}, subnets); d != "" {
		t.Error(d)
	}
}

func TestOldVersionsHaveOneAddressOfAFamily(t *testing.T) {
	const two = `"name":"n","ipam":{"ranges":[[{"subnet":"10.1.0.0/24"}],[{"subnet":"10.2.0.0/24"}]]}}`
	const dual = `"name":"n","ipam":{"ranges":[[{"subnet":"10.1.0.0/24"}],[{"subnet":"fd00::/64"}]]}}`
	for version, old := range map[string]bool{
		"":      true,
		"0.1.0": true,
		"0.2.0": true,
		"0.3.0": false,
		"1.1.0": false,
	} {
		_, err := conf.ReadIPAM([]byte(`{"cniVersion":"`+version+`",`+two), "")
		if (err != nil) != old {
			t.Errorf("%q with two IPv4 addresses: %v", version, err)
		}
		if _, err := conf.ReadIPAM([]byte(`{"cniVersion":"`+version+`",`+dual), ""); err != nil {
			t.Errorf("%q with one of each family: %v", version, err)
		}
	}
}

func TestResolvConfIsReadAsDNS(t *testing.T) {
	path := filepath.Join(t.TempDir(), "resolv.conf")
	const text = "# a comment\n; another\nnameserver 10.0.0.1\nnameserver\ndomain a.test\n" +
		"search a.test b.test\noptions ndots:5 edns0\nunknown x\n"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}

	got, err := conf.ReadResolvConf(path)
	want := types.DNS{
		Nameservers: []string{"10.0.0.1"},
		Domain:      "a.test",
		Search:      []string{"a.test", "b.test"},
		Options:     []string{"ndots:5", "edns0"},
	}
	if d := cmp.Diff(want, got); d != "" || err != nil {
		t.Error(d, err)
	}
}
