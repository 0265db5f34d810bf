package conf_test

import (
	"errors"
	"testing"

	"github.com/trivet-node/trivet/cni/conf"
	"github.com/trivet-node/trivet/cni/ipam"
)

// DEL and GC delete what is recorded, however the configuration was changed since.
func TestTeardownReadsWhatAddRefuses(t *testing.T) {
	for _, keys := range []string{
		`"vlan":5`,
		`"macspoofchk":true`,
		`"ipMasqBackend":"iptables"`,
		`"mtu":"many"`,
		`"hairpinMode":true,"promiscMode":true`,
		`"noMasq":["x"]`,
		`"prevResult":{"cniVersion":"0.2.0"}`,
		`"prevResult":"text"`,
		`"runtimeConfig":{"portMappings":[{"hostPort":70000}]}`,
		`"dns":[]`,
	} {
		for _, section := range []string{
			`{"type":"host-local","dataDir":"/d","subnet":"10.0.0.0/33"}`,
			`{"type":"dhcp","dataDir":"/d"}`,
			`{"dataDir":"/d","routes":[{"dst":"x"}]}`,
		} {
			stdin := `{"name":"n","type":"trivet-cni","bridge":"br9","ipam":` + section + `,` + keys + `}`

			got, err := conf.ReadTeardown([]byte(stdin))
			if err != nil || got.Bridge != "br9" || got.Pool.DataDir != "/d" || got.Valid != nil {
				t.Errorf("%s: %+v, %v", stdin, got, err)
			}
		}
	}
}

// An absent list is not an empty one, and one that cannot be read is neither.
func TestTeardownMistakesNoListForAnEmptyOne(t *testing.T) {
	one := ipam.Owner{ContainerID: "a", IfName: "b"}
	for list, want := range map[string]string{
		`null`:                               "none",
		`[]`:                                 "empty",
		`[{"containerID":"a","ifname":"b"}]`: "one",
		`{}`:                                 "error",
		`[5]`:                                "error",
	} {
		stdin := `{"name":"n","type":"bridge","cni.dev/valid-attachments":` + list + `}`
		teardown, err := conf.ReadTeardown([]byte(stdin))
		got := "empty"
		switch {
		case errors.Is(err, conf.ErrDecode):
			got = "error"
		case err != nil:
			t.Fatal(err)
		case teardown.Valid == nil:
			got = "none"
		case teardown.Valid.Has(one) && teardown.Valid.HasLabel("a/b"):
			got = "one"
		}

		if got != want {
			t.Errorf("%s is taken for %s, want %s", list, got, want)
		}
	}
}

// host-local once wrote reservations without the name of the interface.
func TestReservationsWithoutInterfaceAreOfTheContainer(t *testing.T) {
	const stdin = `{"name":"n","cni.dev/valid-attachments":[{"containerID":"a","ifname":"b"}]}`
	got, err := conf.ReadTeardown([]byte(stdin))
	if err != nil {
		t.Fatal(err)
	}
	if !got.Valid.Has(ipam.Owner{ContainerID: "a"}) || got.Valid.Has(ipam.Owner{ContainerID: "c"}) {
		t.Errorf("%+v", got.Valid)
	}
	if got.Valid.Has(ipam.Owner{ContainerID: "a", IfName: "c"}) || got.Valid.HasLabel("a/c") {
		t.Error("another interface of the container is valid")
	}
}

func FuzzReadTeardown(f *testing.F) {
	f.Add([]byte(full))
	f.Fuzz(func(t *testing.T, data []byte) {
		got, err := conf.ReadTeardown(data)
		if (got == nil) == (err == nil) || got != nil && (got.Bridge == "" || got.Pool.DataDir == "") {
			t.Fatalf("%+v, %v", got, err)
		}
	})
}
