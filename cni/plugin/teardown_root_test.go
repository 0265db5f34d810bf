package plugin_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// The configuration was changed to one that ADD refuses, with pods from before. Package conf has more cases.
func TestDelWorksWhateverHasBecomeOfTheConfiguration(t *testing.T) {
	h := newHost(t, "")
	for _, c := range []struct{ name, old, now string }{
		{"an unsupported key", `"ipMasq":true`, `"vlan":5,"macspoofchk":true`},
		{"another IPAM plugin", `"type":"host-local"`, `"type":"dhcp"`},
		{"a subnet with a typo", "10.88.0.0/24", "10.88.0.0/240"},
		{"a value of another type", `"ipMasq":true`, `"mtu":"1500","ipMasq":"yes"`},
		{"a prevResult of nothing", `"ipMasq":true`, `"prevResult":{"ips":5}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			netns, _, _ := h.pod("a", twoPorts)
			changed := strings.Replace(h.config(""), c.old, c.now, 1)
			h.must("DEL", "a", netns, changed)
			h.must("DEL", "b", "", changed)
			if left := h.leftovers(); left != "" {
				t.Error(left)
			}

			h.pod("c", twoPorts)
			h.must("GC", "", "", strings.TrimSuffix(changed, "}")+`,"cni.dev/valid-attachments":[]}`)
			if left := h.leftovers(); left != "" {
				t.Errorf("after GC: %s", left)
			}
		})
	}
}

func TestDelOfANetworkWithoutIPAMNowReleasesWhatIsRecorded(t *testing.T) {
	h := newHost(t, "")
	netns, _, _ := h.pod("a", "")
	const format = `{"cniVersion":"1.1.0","name":"test","type":"trivet-cni","bridge":"br0",
		"ipam":{"dataDir":%q}}`
	h.must("DEL", "a", netns, fmt.Sprintf(format, h.dataDir))
	if left := h.leftovers(); left != "" {
		t.Error(left)
	}
}

func TestTheHostsOwnNamespaceIsRefusedBeforeAnythingIsMade(t *testing.T) {
	h := newHost(t, "")
	for _, kind := range []string{"trivet-cni", "bridge", "host-local", "loopback"} {
		config := strings.Replace(h.config(""), `"type":"trivet-cni"`, `"type":"`+kind+`"`, 1)
		out, err := h.call("ADD", "a", h.netns, config)
		if err == nil || strings.Count(out, `"code": 8`) != 1 || strings.Contains(out, "ips") {
			t.Errorf("%s: %v, %s", kind, err, out)
		}
	}

	if links := h.ip(h.netns, "-o link show"); strings.Count(links, "\n") != 1 || h.leftovers() != "" {
		t.Errorf("left: %s, %s", links, h.leftovers())
	}

	// The runtime calls DEL after the ADD that failed: what the host itself has under the name stays.
	h.ip(h.netns, "link add eth0 type veth peer name eth0peer")
	_, err := h.call("DEL", "a", h.netns, h.config(""))
	t.Logf("the CNI library refuses the namespace in DEL, too, in the end: %v", err)
	if links := h.ip(h.netns, "-o link show"); !strings.Contains(links, "eth0@") {
		t.Errorf("DEL took the host's interface: %s", links)
	}
}

func TestStatusFailsOnAFullDisk(t *testing.T) {
	h := newHost(t, "")
	if err := unix.Mount("full", h.dataDir, "tmpfs", 0, "size=64k,nr_inodes=100"); err != nil {
		t.Fatal(err)
	}

	t.Cleanup(func() {
		if err := unix.Unmount(h.dataDir, 0); err != nil {
			t.Error(err)
		}
	})

	h.must("STATUS", "", "", h.config(""))
	if err := os.WriteFile(filepath.Join(h.dataDir, "ballast"), make([]byte, 1<<20), 0o600); err == nil {
		t.Fatal("the disk is not full")
	}

	for _, kind := range []string{"trivet-cni", "host-local"} {
		config := strings.Replace(h.config(""), `"type":"trivet-cni"`, `"type":"`+kind+`"`, 1)
		_, err := h.call("STATUS", "", "", config)
		if err == nil || !strings.Contains(err.Error(), `"code": 51`) ||
			!strings.Contains(err.Error(), "no space left") {
			t.Errorf("%s: %v", kind, err)
		}
	}

	if left := h.leftovers(); left != "" {
		t.Error(left)
	}
}

func TestHostPortsGoWhenTheGuardOfMACAddressesCannot(t *testing.T) {
	h := newHost(t, `,"macspoofchk":true`)
	netns, _, _ := h.pod("a", twoPorts)

	// The kernel deletes no chain that another rule jumps to.
	h.nft("insert rule bridge nat PREROUTING jump cni-br-iface-a-eth0")
	if _, err := h.call("DEL", "a", netns, h.config(twoPorts)); err == nil {
		t.Error("DEL is success, with a chain that is left")
	}
	if rules := h.rules(); strings.Contains(rules, "8080") {
		t.Errorf("a host port is left: %s", rules)
	}
	if links := h.ip(h.netns, "-o link show type veth"); links != "" {
		t.Errorf("left: %s", links)
	}

	h.nft("flush chain bridge nat PREROUTING")
	h.must("DEL", "a", netns, h.config(twoPorts))
	if left := h.remains(); left != "" {
		t.Error(left)
	}
}
