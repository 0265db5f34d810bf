package conf_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/trivet-node/trivet/cni/conf"
)

func TestAddressesOfTheRuntimeComeInsteadOfStaticOnes(t *testing.T) {
	const ipam = `"ipam":{"type":"static","addresses":[{"address":"10.0.0.2/24","gateway":"10.0.0.1"}]}`
	for _, c := range []struct{ keys, args, want string }{
		{ipam, "", "[{10.0.0.2/24 10.0.0.1}]"},
		{ipam, "IP=10.1.0.2/24", "[{10.0.0.2/24 10.0.0.1} {10.1.0.2/24 invalid IP}]"},
		{
			ipam,
			"IP=10.1.0.2/24,fd00::2/64;GATEWAY=10.1.0.1,fd00::1",
			"[{10.0.0.2/24 10.0.0.1} {10.1.0.2/24 10.1.0.1} {fd00::2/64 fd00::1}]",
		},
		{ipam + `,"args":{"cni":{"ips":["10.2.0.2/24"]}}`, "", "[{10.2.0.2/24 invalid IP}]"},
		{
			ipam + `,"args":{"cni":{"ips":["10.2.0.2/24"]}},"runtimeConfig":{"ips":["10.3.0.2/24"]}`,
			"IP=10.1.0.2/24",
			"[{10.3.0.2/24 invalid IP}]",
		},
	} {
		s, err := conf.ReadStatic([]byte(`{"cniVersion":"1.0.0",`+c.keys+`}`), c.args)
		if err != nil || fmt.Sprint(s.Addresses) != c.want {
			t.Errorf("%s %s: %v, %v, want %s", c.keys, c.args, s, err, c.want)
		}
	}
}

func TestStaticRefusesWhatIsNotInCIDRNotation(t *testing.T) {
	for _, c := range []struct{ version, keys, names string }{
		{"1.0.0", `"type":"static"`, "ipam is missing"},
		{"1.0.0", `"ipam":{"addresses":[{"address":"10.0.0.2"}]}`, "10.0.0.2"},
		{"1.0.0", `"ipam":{"addresses":[{"address":"10.0.0.2/24","gateway":"x"}]}`, "gateway"},
		{"0.2.0", `"ipam":{"addresses":[{"address":"10.0.0.2/24"},{"address":"10.0.0.3/24"}]}`, "0.2.0"},
	} {
		_, err := conf.ReadStatic([]byte(`{"cniVersion":"`+c.version+`",`+c.keys+`}`), "")
		if err == nil || !strings.Contains(err.Error(), c.names) {
			t.Errorf("%+v: %v", c, err)
		}
	}
}

func TestTrunksAreRangesThatDoNotOverlap(t *testing.T) {
	const keys = `{"name":"n","vlanTrunk":[{"id":7},{"minID":3,"maxID":6},
		{"minID":100,"maxID":200,"id":201}]}`
	n, err := conf.ReadNetwork([]byte(keys), conf.Options{})
	if err != nil || fmt.Sprint(n.Bridge.VLANs.Trunk) != "[{3 7 false} {100 201 false}]" {
		t.Errorf("%+v, %v", n, err)
	}
}
