package plugin_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// The configuration has become one that ADD refuses, with pods from before.
func TestDelWorksWhateverHasBecomeOfTheConfiguration(t *testing.T) {
	h := newHost(t, "")
	for name, spoil := range map[string]func(string) string{
		"an unsupported key": func(c string) string {
			return strings.Replace(c, `"ipMasq":true`,
				`"vlan":5,"macspoofchk":true`, 1)
		},
		"another backend": func(c string) string {
			return strings.Replace(c, `"ipMasq":true`,
				`"ipMasqBackend":"iptables"`, 1)
		},
		"another IPAM plugin": func(c string) string {
			return strings.Replace(c, `"type":"host-local"`,
				`"type":"dhcp"`, 1)
		},
		"a subnet with a typo": func(c string) string {
			return strings.Replace(c, "10.88.0.0/24",
				"10.88.0.0/240", 1)
		},
		"a value of another type": func(c string) string {
			return strings.Replace(c, `"ipMasq":true`,
				`"mtu":"1500","ipMasq":"yes"`, 1)
		},
		"a port without sense": func(c string) string {
			return strings.TrimSuffix(c, "}") + `,"runtimeConfig":{"portMappings":[{"hostPort":-1}]}}`
		},
		"an old prevResult": func(c string) string {
			return strings.TrimSuffix(c, "}") +
				`,"prevResult":{"cniVersion":"0.2.0","ip4":{"ip":"10.88.0.2/24"}}}`
		},
		"a prevResult of nothing": func(c string) string {
			return strings.TrimSuffix(c, "}") +
				`,"prevResult":{"ips":5}}`
		},
	} {
		t.Run(name, func(t *testing.T) {
			netns, _, _ := h.pod("a", twoPorts)
			spoilt := spoil(h.config(""))
			h.must("DEL", "a", netns, spoilt)
			h.must("DEL", "b", "", spoilt)
			if left := h.leftovers(); left != "" {
				t.Error(left)
			}

			h.pod("c", twoPorts)
			h.must("GC", "", "", strings.TrimSuffix(spoilt, "}")+`,"cni.dev/valid-attachments":[]}`)
			if left := h.leftovers(); left != "" {
				t.Errorf("after GC: %s", left)
			}
		})
	}
}

func TestDelOfANetworkWithoutIPAMNowReleasesWhatIsRecorded(t *testing.T) {
	h := newHost(t, "")
	netns, _, _ := h.pod("a", "")
	h.must("DEL", "a", netns,
		`{"cniVersion":"1.1.0","name":"test","type":"trivet-cni","bridge":"br0",
			"ipam":{"dataDir":"`+h.dataDir+`"}}`)
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

func TestStatusTellsOfAFullDisk(t *testing.T) {
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
		_, err := h.call("STATUS", "", "", strings.Replace(h.config(""), `"type":"trivet-cni"`,
			`"type":"`+kind+`"`, 1))
		if err == nil || !strings.Contains(err.Error(), `"code": 50`) ||
			!strings.Contains(err.Error(), "no space left") {
			t.Errorf("%s: %v", kind, err)
		}
	}

	if left := h.leftovers(); left != "" {
		t.Error(left)
	}
}
