package addresses_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/trivet-node/trivet/cni/conf"
	"github.com/trivet-node/trivet/cni/ipam"
	"github.com/trivet-node/trivet/cni/plugin/addresses"
	"github.com/trivet-node/trivet/cni/plugin/call"
)

// plugin is host-local with a data directory.
type plugin struct {
	addresses.HostLocal
	t       *testing.T
	dataDir string
	// keys are those of the configuration beside the ones of newPlugin.
	keys string
	// section is ipam without dataDir.
	section string
}

func newPlugin(t *testing.T) *plugin {
	return &plugin{t: t, dataDir: t.TempDir(), section: `"type":"host-local","subnet":"10.1.0.0/24"`}
}

// call returns the call of a container.
func (p *plugin) call(id string) *call.Call {
	p.t.Helper()
	section := fmt.Sprintf(`{"dataDir":%q,%s}`, p.dataDir, p.section)
	stdin := `{"cniVersion":"1.1.0","name":"net","type":"macvlan","ipam":` + section + p.keys + `}`
	h, err := conf.ReadHead([]byte(stdin))
	if err != nil {
		p.t.Fatal(err)
	}

	c := call.New(h, call.Request{ContainerID: id, IfName: "eth0", Stdin: []byte(stdin)})
	if err := c.ReadPrevious(); err != nil {
		p.t.Fatal(err)
	}

	return c
}

// add calls ADD and returns the result.
func (p *plugin) add(id string) string {
	p.t.Helper()
	var out bytes.Buffer
	c := p.call(id)
	c.Out = &out
	if err := p.Add(c); err != nil {
		p.t.Fatal(err)
	}
	return out.String()
}

// files are the names of the reservations.
func (p *plugin) files() string {
	p.t.Helper()
	found, err := filepath.Glob(filepath.Join(p.dataDir, "net", "*.*.*.*"))
	if err != nil {
		p.t.Fatal(err)
	}
	var names []string
	for _, f := range found {
		names = append(names, filepath.Base(f))
	}
	return strings.Join(names, " ")
}

func TestTheResultHasAddressesRoutesAndDNSButNoInterface(t *testing.T) {
	p := newPlugin(t)
	resolvConf := filepath.Join(t.TempDir(), "resolv.conf")
	if err := os.WriteFile(resolvConf, []byte("nameserver 10.9.9.9\n"), 0o600); err != nil {
		t.Fatal(err)
	}

	p.section += fmt.Sprintf(`,"routes":[{"dst":"0.0.0.0/0","table":7}],"resolvConf":%q`, resolvConf)

	var result struct {
		Interfaces []any
		IPs        []struct {
			Address, Gateway string
			Interface        *int
		}
		Routes []struct {
			Dst   string
			Table int
		}
		DNS struct{ Nameservers []string }
	}

	out := p.add("a")
	if err := json.Unmarshal([]byte(out), &result); err != nil {
		t.Fatal(err)
	}

	if len(result.Interfaces) != 0 || len(result.IPs) != 1 || result.IPs[0].Address != "10.1.0.2/24" ||
		result.IPs[0].Gateway != "10.1.0.1" || result.IPs[0].Interface != nil ||
		len(result.Routes) != 1 || result.Routes[0].Dst != "0.0.0.0/0" || result.Routes[0].Table != 7 ||
		len(result.DNS.Nameservers) != 1 {
		t.Errorf("%s", out)
	}
}

// Upstream's plugins pass their own keys to the IPAM plugin.
func TestKeysOfTheMainPluginMeanNothing(t *testing.T) {
	p := newPlugin(t)
	p.keys = `,"vlan":5,"ipMasqBackend":"iptables","mtu":"9000","bridge":{},"mode":"bridge","master":"eth0"`
	p.keys += `,"prevResult":` + p.add("a")
	if err := p.Check(p.call("a")); err != nil {
		t.Error(err)
	}

	for range 2 {
		if err := p.Del(p.call("a")); err != nil {
			t.Error(err)
		}
	}

	if left := p.files(); left != "" {
		t.Errorf("left %s", left)
	}
}

func TestCheckComparesPrevResultWithTheReservations(t *testing.T) {
	p := newPlugin(t)
	if err := p.Check(p.call("a")); err == nil ||
		!strings.Contains(err.Error(), "no address is reserved for a/eth0") {
		t.Errorf("without a reservation: %v", err)
	}

	p.add("a")
	const previous = `,"prevResult":{"cniVersion":"1.1.0",
		"interfaces":[{"name":"eth0","sandbox":"/x"},{"name":"eth1","sandbox":"/x"}],
		"ips":[{"address":"%s/24","interface":0},{"address":"10.9.9.9/24","interface":1}]}`
	p.keys = fmt.Sprintf(previous, "10.1.0.2")
	if err := p.Check(p.call("a")); err != nil {
		t.Errorf("addresses of other interfaces are looked at: %v", err)
	}

	p.keys = fmt.Sprintf(previous, "10.1.0.7")
	if err := p.Check(p.call("a")); err == nil || !strings.Contains(err.Error(), "10.1.0.7 is not reserved") {
		t.Errorf("another address: %v", err)
	}
}

func TestAConfigurationWithoutIPAMIsInvalid(t *testing.T) {
	p := newPlugin(t)
	stdin := []byte(`{"cniVersion":"1.1.0","name":"net"}`)
	for verb, do := range map[string]func(*call.Call) error{
		"ADD":    p.Add,
		"CHECK":  p.Check,
		"STATUS": p.Status,
	} {
		err := do(call.New(conf.Head{}, call.Request{ContainerID: "a", IfName: "eth0", Stdin: stdin}))
		if !errors.Is(err, conf.ErrInvalid) || !strings.Contains(err.Error(), "ipam is missing") {
			t.Errorf("%s: %v", verb, err)
		}
	}
}

func TestAddThatFailsReservesNothing(t *testing.T) {
	p := newPlugin(t)
	p.section += `,"resolvConf":"/does/not/exist"`
	if err := p.Add(p.call("a")); err == nil || !strings.Contains(err.Error(), "resolvConf") {
		t.Errorf("%v", err)
	}
	if left := p.files(); left != "" {
		t.Errorf("left %s", left)
	}
}

func TestStatusForetellsThatNoAddressIsLeft(t *testing.T) {
	p := newPlugin(t)
	p.section = `"type":"host-local","subnet":"10.1.0.0/30"`
	if err := p.Status(p.call("")); err != nil {
		t.Error(err)
	}

	p.add("a")
	if err := p.Status(p.call("")); !errors.Is(err, ipam.ErrExhausted) {
		t.Errorf("%v", err)
	}
	if err := p.Add(p.call("b")); !errors.Is(err, ipam.ErrExhausted) {
		t.Errorf("%v", err)
	}
}

func TestStatusForetellsThatFewAddressesAreLeft(t *testing.T) {
	p := newPlugin(t)
	p.section = `"type":"host-local","subnet":"10.1.0.0/29","statusReserve":2`
	for _, id := range []string{"a", "b", "c"} {
		if err := p.Status(p.call("")); err != nil {
			t.Errorf("before %s: %v", id, err)
		}
		p.add(id)
	}
	if err := p.Status(p.call("")); !errors.Is(err, ipam.ErrNearlyExhausted) {
		t.Errorf("two addresses are left: %v", err)
	}
	p.add("d")
	p.add("e")
	if err := p.Status(p.call("")); !errors.Is(err, ipam.ErrExhausted) {
		t.Errorf("no address is left: %v", err)
	}
}

func TestGCReleasesWhatTheRuntimeDoesNotHave(t *testing.T) {
	p := newPlugin(t)
	for _, id := range []string{"keep", "drop"} {
		p.add(id)
	}

	// In host-local's old format a reservation names no interface.
	for address, id := range map[string]string{"10.1.0.8": "keep", "10.1.0.9": "drop"} {
		if err := os.WriteFile(filepath.Join(p.dataDir, "net", address), []byte(id), 0o600); err != nil {
			t.Fatal(err)
		}
	}

	if err := p.GC(p.call("")); err != nil || p.files() != "10.1.0.2 10.1.0.3 10.1.0.8 10.1.0.9" {
		t.Errorf("without a list: %s, %v", p.files(), err)
	}

	p.keys = `,"cni.dev/valid-attachments":[{"containerID":"keep","ifname":"eth0"}]`
	if err := p.GC(p.call("")); err != nil || p.files() != "10.1.0.2 10.1.0.8" {
		t.Errorf("with one: %s, %v", p.files(), err)
	}

	p.keys = `,"cni.dev/valid-attachments":[]`
	if err := p.GC(p.call("")); err != nil || p.files() != "" {
		t.Errorf("with an empty one: %s, %v", p.files(), err)
	}
}
