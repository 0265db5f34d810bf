package conf_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/trivet-node/trivet/cni/conf"
)

func TestRoleIsTheNameThatTheProgramIsCalledBy(t *testing.T) {
	const subnet = `"subnet":"10.0.0.0/24"`
	for _, c := range []struct {
		program, kind, ipam string
		want                conf.Role
	}{
		{"trivet-cni", "trivet-cni", "host-local", conf.TrivetCNI},
		{"bridge", "bridge", "host-local", conf.Bridge},
		{"host-local", "ptp", "host-local", conf.HostLocal}, // the IPAM plugin of another main plugin
		{"host-local", "bridge", "host-local", conf.HostLocal},
		{"trivet-cni", "macvlan", "trivet-cni", conf.HostLocal}, // the same, by our own name
		{"trivet-cni", "bridge", "trivet-cni", conf.HostLocal},
		{"loopback", "", "", conf.Loopback},
		{"plugin.test", "bridge", "host-local", conf.Bridge},
	} {
		stdin := `{"cniVersion":"1.0.0","name":"n","type":"` + c.kind + `","ipam":{"type":"` + c.ipam + `",` +
			subnet + `}}`
		if c.ipam == "trivet-cni" && c.want != conf.HostLocal {
			t.Fatal("such an IPAM plugin is always delegated to")
		}

		n, err := conf.Parse(c.program, []byte(stdin), "")
		if err != nil || n.Role != c.want {
			t.Errorf("%+v: %+v, %v", c, n, err)
		}
	}

	if _, err := conf.Parse("trivet-cni", []byte(`{"name":"n","type":"ptp"}`), ""); err == nil {
		t.Error("a main plugin that the program is not")
	}
}

// The other keys of the configuration belong to the main plugin.
func TestDelegatedIPAMReadsItsOwnKeysOnly(t *testing.T) {
	n, err := conf.Parse("host-local", []byte(`{"cniVersion":"1.0.0","name":"n","type":"macvlan","vlan":5,
		"bridge":{"a":1},"mtu":"9000","ipMasqBackend":"iptables","macspoofchk":true,
		"runtimeConfig":{"mac":"x","portMappings":[{"hostPort":1}],"ips":["10.0.0.9"]},
		"ipam":{"type":"host-local","subnet":"10.0.0.0/24"}}`), "IgnoreUnknown=1;K8S_POD_NAME=x;OTHER=1")
	if err != nil || len(n.IPAM.Sets) != 1 || len(n.IPAM.Requested) != 1 {
		t.Errorf("%+v, %v", n, err)
	}
}

func TestLoopbackNeedsNeitherTypeNorArgs(t *testing.T) {
	if n, err := conf.Parse("loopback", []byte(`{"cniVersion":"1.0.0","name":"lo"}`), "none"); err != nil ||
		n.Role != conf.Loopback {
		t.Errorf("%+v, %v", n, err)
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
		_, err := conf.Parse("bridge", []byte(stdin), args)
		if (err != nil) != (unknown != "") || err != nil && !strings.Contains(details(err), unknown) {
			t.Errorf("%s: %v", args, err)
		}
	}
}

func TestOldVersionsHaveOneAddressOfAFamily(t *testing.T) {
	const two = `"name":"n","type":"bridge",
		"ipam":{"type":"host-local","ranges":[[{"subnet":"10.1.0.0/24"}],[{"subnet":"10.2.0.0/24"}]]}}`
	const dual = `"name":"n","type":"bridge",
		"ipam":{"type":"host-local","ranges":[[{"subnet":"10.1.0.0/24"}],[{"subnet":"fd00::/64"}]]}}`
	for _, version := range []string{"", "0.1.0", "0.2.0", "0.3.0", "1.1.0"} {
		old := version == "" || version[:3] == "0.1" || version[:3] == "0.2"
		_, err := conf.Parse("bridge", []byte(`{"cniVersion":"`+version+`",`+two), "")
		if (err != nil) != old {
			t.Errorf("%q with two IPv4 addresses: %v", version, err)
		}
		if _, err := conf.Parse("bridge", []byte(`{"cniVersion":"`+version+`",`+dual), ""); err != nil {
			t.Errorf("%q with one of each family: %v", version, err)
		}
	}
}

func TestOneHostPortLeadsToOneContainerPort(t *testing.T) {
	const any, all4, all6, one, two = "", `"0.0.0.0"`, `"::"`, `"10.0.0.1"`, `"10.0.0.2"`
	port := func(container int, hostIP, more string) string {
		if hostIP != any {
			more += `,"hostIP":` + hostIP
		}

		return fmt.Sprintf(`{"hostPort":80,"containerPort":%d%s}`, container, more)
	}

	// how many remain; 0: refused
	for mappings, want := range map[string]int{
		port(1, any, "") + "," + port(2, any, ""):                  0,
		port(1, any, "") + "," + port(2, all4, ""):                 0,
		port(1, all6, "") + "," + port(2, any, ""):                 0,
		port(1, one, "") + "," + port(2, one, ""):                  0,
		port(1, any, "") + "," + port(1, any, ""):                  1,
		port(1, any, "") + "," + port(2, any, `,"protocol":"udp"`): 2,
		port(1, all4, "") + "," + port(2, all6, ""):                2,
		port(1, one, "") + "," + port(2, two, ""):                  2,
		port(1, one, "") + "," + port(2, any, ""):                  2,
	} {
		n, err := conf.Parse("trivet-cni",
			[]byte(`{"name":"n","type":"trivet-cni","runtimeConfig":{"portMappings":[`+mappings+`]}}`), "")
		switch {
		case want > 0 && (err != nil || len(n.Ports) != want):
			t.Errorf("%s: %+v, %v", mappings, n, err)
		case want == 0 && (err == nil || !strings.Contains(details(err), "container port 1") ||
			!strings.Contains(details(err), "container port 2")):
			t.Errorf("%s: %v", mappings, err)
		}
	}
}

// DEL and GC take apart what is recorded, whatever has become of the configuration.
func TestTeardownReadsWhatParseRefuses(t *testing.T) {
	for _, keys := range []string{
		`"vlan":5`, `"macspoofchk":true`, `"ipMasqBackend":"iptables"`, `"mtu":"many"`,
		`"hairpinMode":true,"promiscMode":true`,
		`"noMasq":["x"]`, `"prevResult":{"cniVersion":"0.2.0"}`, `"prevResult":"text"`,
		`"runtimeConfig":{"portMappings":[{"hostPort":70000}]}`, `"dns":[]`,
	} {
		for _, ipam := range []string{`{"type":"host-local","dataDir":"/d","subnet":"10.0.0.0/33"}`,
			`{"type":"dhcp","dataDir":"/d"}`, `{"dataDir":"/d","routes":[{"dst":"x"}]}`} {
			n, err := conf.ParseTeardown("trivet-cni",
				[]byte(`{"name":"n","type":"trivet-cni","bridge":"br9","ipam":`+ipam+`,`+keys+`}`))
			if err != nil || n.Bridge != "br9" || n.IPAM.DataDir != "/d" || n.HasValid {
				t.Errorf("%s: %+v, %v", keys, n, err)
			}
		}
	}
}

// An absent list is not an empty one, and one that cannot be read is neither.
func TestTeardownMistakesNoListForAnEmptyOne(t *testing.T) {
	for list, want := range map[string]string{
		`null`:                               "none",
		`[]`:                                 "empty",
		`[{"containerID":"a","ifname":"b"}]`: "one",
		`{}`:                                 "error",
		`[5]`:                                "error",
	} {
		n, err := conf.ParseTeardown("bridge",
			[]byte(`{"name":"n","type":"bridge","cni.dev/valid-attachments":`+list+`}`))
		got := "none"
		switch {
		case errors.As(err, new(*types.Error)):
			got = "error"
		case n.HasValid && len(n.Valid) == 0:
			got = "empty"
		case n.HasValid:
			got = "one"
		}

		if got != want {
			t.Errorf("%s is taken for %s, want %s", list, got, want)
		}
	}
}

func FuzzParseTeardown(f *testing.F) {
	f.Add("trivet-cni", []byte(full))
	f.Fuzz(func(t *testing.T, program string, data []byte) {
		n, err := conf.ParseTeardown(program, data)
		if (n == nil) == (err == nil) || n != nil && (n.IPAM == nil || n.Bridge == "") {
			t.Fatalf("%+v, %v", n, err)
		}
	})
}

// details is the whole text of a CNI error.
func details(err error) string {
	var coded *types.Error
	if errors.As(err, &coded) {
		return coded.Msg + ": " + coded.Details
	}
	return err.Error()
}
