package plugin_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/trivet-node/trivet/internal/testenv"
)

// otherIPAM is an IPAM plugin of somebody else, which notes how it is called.
const otherIPAM = `#!/bin/sh
echo "$CNI_COMMAND $CNI_CONTAINERID" >> %[1]q
case $CNI_COMMAND in
ADD) echo '{"cniVersion":"1.0.0","ips":[{"address":"10.77.0.5/24"}],"routes":[{"dst":"192.0.2.0/24"}]}' ;;
STATUS) echo '{"cniVersion":"1.1.0","code":50,"msg":"not now"}'; exit 1 ;;
esac
`

func TestAnotherIPAMPluginIsCalledByExec(t *testing.T) {
	h := newHost(t, "")
	dir := t.TempDir()
	notes := filepath.Join(dir, "notes")
	script := fmt.Sprintf(otherIPAM, notes)
	if err := os.WriteFile(filepath.Join(dir, "elsewhere"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}

	netns := testenv.Netns(t)
	call := func(verb, more string) (string, error) {
		config := `{"cniVersion":"1.1.0","name":"test","type":"bridge","bridge":"br0","isGateway":true,
			"ipam":{"type":"elsewhere"}` + more + `}`
		c := h.command(verb, "a", netns, config)
		c.Env = append(c.Env, "CNI_PATH="+dir)
		return h.run(c)
	}

	out, err := call("ADD", "")
	if err != nil || !strings.Contains(out, "10.77.0.5/24") || !strings.Contains(out, "10.77.0.1") {
		t.Fatalf("%s, %v", out, err)
	}

	if _, err := call("CHECK", `,"prevResult":`+out); err != nil {
		t.Error(err)
	}
	out, _ = call("STATUS", "")
	if !strings.Contains(out, `"code": 50`) || !strings.Contains(out, "not now") {
		t.Error(out)
	}

	const valid = `,"cni.dev/valid-attachments":[{"containerID":"a","ifname":"eth0"}]`
	if _, err := call("GC", valid); err != nil {
		t.Error(err)
	}
	if _, err := call("DEL", ""); err != nil {
		t.Error(err)
	}

	got, err := os.ReadFile(notes)
	if want := "ADD a\nCHECK a\nSTATUS a\nGC a\nDEL a\n"; string(got) != want {
		t.Errorf("%q, %v", got, err)
	}

	// DEL takes apart what it can when the other plugin is not there any more.
	if _, err := call("ADD", ""); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(dir, "elsewhere")); err != nil {
		t.Fatal(err)
	}
	if _, err := call("DEL", ""); err != nil || h.leftovers() != "" {
		t.Errorf("%v, %s", err, h.leftovers())
	}
}

// A pool that cannot be read, of an earlier configuration, does not keep addresses with the plugin that is
// named now.
func TestAnotherIPAMPluginIsCalledThoughThePoolCannotBeRead(t *testing.T) {
	for _, kind := range []string{"ptp", "bridge", "trivet-cni"} {
		h := newHost(t, "")
		dir := t.TempDir()
		notes, loop := filepath.Join(dir, "notes"), filepath.Join(dir, "loop")
		script := fmt.Sprintf(otherIPAM, notes)
		if err := os.WriteFile(filepath.Join(dir, "elsewhere"), []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(loop, loop); err != nil {
			t.Fatal(err)
		}

		for _, verb := range []string{"DEL", "GC"} {
			c := h.command(verb, "a", "", `{"cniVersion":"1.1.0","name":"test","type":"`+kind+`",
				"ipam":{"type":"elsewhere","dataDir":"`+loop+`"},"cni.dev/valid-attachments":[]}`)
			c.Env = append(c.Env, "CNI_PATH="+dir)
			if out, err := h.run(c); err == nil || !strings.Contains(out, "symbolic links") {
				t.Errorf("%s of %s: %s, %v", verb, kind, out, err)
			}
		}

		got, err := os.ReadFile(notes)
		if want := "DEL a\nGC a\n"; string(got) != want {
			t.Errorf("%s: %q, %v", kind, got, err)
		}
	}
}

func TestStaticAddressesWithAllMainPlugins(t *testing.T) {
	const ipam = `"ipam":{"type":"static","addresses":[{"address":"10.66.0.5/24","gateway":"10.66.0.1"}],
		"routes":[{"dst":"0.0.0.0/0"}],"dns":{"nameservers":["10.66.0.1"]}}`
	for name, keys := range map[string]string{
		"bridge":     `"type":"bridge","bridge":"br0","isGateway":true,` + ipam,
		"ptp":        `"type":"ptp",` + ipam,
		"trivet-cni": `"type":"trivet-cni","bridge":"br0","isGateway":true,` + ipam + twoPorts,
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t, "")
			if name == "trivet-cni" {
				where := fmt.Sprintf(`"type":"static","dataDir":%q`, h.dataDir)
				keys = strings.Replace(keys, `"type":"static"`, where, 1)
			}

			c := h.newChain("pod", keys)
			if !strings.Contains(c.result, "10.66.0.5/24") || !strings.Contains(c.result, "nameservers") {
				t.Error(c.result)
			}
			if err := c.check(); err != nil {
				t.Error(err)
			}

			h.serve(c.netns, 80)
			if _, err := h.dial(h.netns, "10.66.0.5:80"); err != nil {
				t.Error(err)
			}

			c.del()
			if left := h.leftovers(); left != "" {
				t.Error(left)
			}
		})
	}
}

// The main plugins of others call host-local and static by exec, with their own configuration.
func TestAddressesForMainPluginsOfOthers(t *testing.T) {
	h := newHost(t, "")
	netns := testenv.Netns(t)
	config := fmt.Sprintf(`{"cniVersion":"0.4.0","name":"lan","type":"macvlan","master":"eth0",
		"ipam":{"type":"host-local","dataDir":%q,"subnet":"10.7.0.0/24"}}`, h.dataDir)
	out, err := h.callAs("host-local", "ADD", "a", netns, "eth0", config)
	if err != nil || !strings.Contains(out, "10.7.0.2/24") {
		t.Errorf("%s, %v", out, err)
	}
	if _, err := h.callAs("host-local", "DEL", "a", "", "eth0", config); err != nil {
		t.Error(err)
	}

	config = `{"cniVersion":"0.2.0","name":"lan","type":"macvlan","master":"eth0",
		"ipam":{"type":"static","addresses":[{"address":"10.7.0.9/24"}]}}`
	out, err = h.callAs("static", "ADD", "a", netns, "eth0", config)
	if err != nil || !strings.Contains(out, `"ip4"`) || !strings.Contains(out, "10.7.0.9/24") {
		t.Errorf("%s, %v", out, err)
	}
}
