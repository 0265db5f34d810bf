package plugin_test

import (
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/trivet-node/trivet/internal/testenv"
)

const twoPorts = `,"runtimeConfig":{"portMappings":[{"hostPort":8080,"containerPort":80},
	{"hostPort":9090,"containerPort":80,"hostIP":"127.0.0.1"}]}`

func TestPodsReachEachOtherTheHostAndHostPorts(t *testing.T) {
	for name, extra := range map[string]string{
		"across the bridge": "",
		"through the host":  `,"hostRouted":true`,
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t, extra)
			server, server4, server6 := h.pod("server", twoPorts)
			client, client4, client6 := h.pod("client", "")
			h.serve(server, 80)
			h.serve(h.netns, 7070)
			for _, c := range []struct{ from, to, seen string }{
				{client, net.JoinHostPort(server4.String(), "80"), client4.String()},
				{client, net.JoinHostPort(server6.String(), "80"), client6.String()},
				{client, "10.88.0.1:7070", client4.String()},
				{h.netns, "127.0.0.1:8080", "10.88.0.1"},
				{h.netns, "127.0.0.1:9090", "10.88.0.1"},
				{client, "10.88.0.1:8080", ""},
				{client, "[fd88::1]:8080", ""},
				// Itself, by its host port.
				{server, "10.88.0.1:8080", ""},
				{server, "[fd88::1]:8080", ""},
			} {
				seen, err := h.dial(c.from, c.to)
				if err != nil || c.seen != "" && seen != c.seen {
					t.Errorf("%s: seen as %q, want %q: %v", c.to, seen, c.seen, err)
				}
			}

			if reaches(client, "10.88.0.1:9090") {
				t.Error("a host port of 127.0.0.1 answers on another address")
			}

			h.must("DEL", "server", server, h.config(twoPorts))
			if reaches(h.netns, "127.0.0.1:8080") {
				t.Error("the host port outlives its pod")
			}

			h.must("DEL", "client", client, h.config(""))
			if left := h.leftovers(); left != "" {
				t.Error(left)
			}
		})
	}
}

// Pods appear on a network beyond the host with the host's address, except where noMasq says otherwise.
func TestMasquerade(t *testing.T) {
	h := newHost(t, `,"noMasq":["192.0.2.128/25"]`)
	beyond := h.uplink("192.0.2.1/24")
	h.ip(beyond, "addr add 192.0.2.2/24 dev up1")
	h.ip(beyond, "addr add 192.0.2.200/24 dev up1")
	h.ip(beyond, "route add 10.88.0.0/24 via 192.0.2.1")
	h.serve(beyond, 80)

	pod, v4, _ := h.pod("pod", "")
	for to, want := range map[string]string{
		"192.0.2.2:80":   "192.0.2.1",
		"192.0.2.200:80": v4.String(),
	} {
		if seen, err := h.dial(pod, to); err != nil || seen != want {
			t.Errorf("%s saw %q, want %q: %v", to, seen, want, err)
		}
	}
}

func TestDelIsHarmlessWhateverIsLeft(t *testing.T) {
	h := newHost(t, "")
	netns, _, _ := h.pod("a", twoPorts)

	// There is no namespace, no runtimeConfig and no prevResult.
	h.must("DEL", "a", "", h.config(""))
	h.must("DEL", "a", netns, h.config(twoPorts))
	h.must("DEL", "never-added", "/nowhere", h.config(""))
	if left := h.leftovers(); left != "" {
		t.Error(left)
	}
	h.must("ADD", "a", netns, h.config(twoPorts))
}

func TestAddThatFailsLeavesNothing(t *testing.T) {
	h := newHost(t, "")
	h.pod("first", twoPorts)
	before := h.leftovers()
	netns := testenv.Netns(t)
	_, err := h.call("ADD", "second", netns, h.config(twoPorts))
	if err == nil || !strings.Contains(err.Error(), "taken by first/eth0") {
		t.Errorf("a taken host port: %v", err)
	}
	if _, err := h.call("ADD", "third", "/nowhere", h.config("")); err == nil {
		t.Error("ADD without namespace succeeds")
	}

	if now := h.leftovers(); now != before {
		t.Errorf("before %s\nafter  %s", before, now)
	}
	if _, err := h.call("ADD", "first", netns, h.config("")); err == nil {
		t.Error("a second ADD of one attachment succeeds")
	}
}

func TestLazyUnlinkLetsTheSameContainerComeAgain(t *testing.T) {
	h := newHost(t, `,"lazyUnlink":true`)
	netns, _, _ := h.pod("a", "")
	h.must("DEL", "a", netns, h.config(""))
	h.must("DEL", "a", netns, h.config(""))
	h.must("ADD", "a", netns, h.config(""))
	h.must("DEL", "a", netns, h.config(""))
	h.must("GC", "", "", h.config(`,"cni.dev/valid-attachments":[]`))
	if left := h.leftovers(); left != "" {
		t.Error(left)
	}
}

func TestGCKeepsWhatIsListed(t *testing.T) {
	h := newHost(t, "")
	h.pod("keep", ports(`{"hostPort":8080,"containerPort":80}`))
	kept := h.leftovers()
	h.pod("drop", ports(`{"hostPort":8081,"containerPort":80}`))
	both := h.leftovers()
	h.must("GC", "", "", h.config(""))
	if now := h.leftovers(); now != both {
		t.Errorf("GC without a list changed something: %s", now)
	}

	h.must("GC", "", "", h.config(`,"cni.dev/valid-attachments":[{"containerID":"keep","ifname":"eth0"}]`))
	if now := h.leftovers(); now != kept {
		t.Errorf("after GC: %s\nwant     %s", now, kept)
	}
}

func TestStatusFailsWhenAddWould(t *testing.T) {
	h := newHost(t, "")
	h.must("STATUS", "", "", h.config(""))
	small := strings.Replace(h.config(""), "10.88.0.0/24", "10.88.0.0/30", 1)
	h.must("ADD", "only", testenv.Netns(t), small)
	_, err := h.call("STATUS", "", "", small)
	if err == nil || !strings.Contains(err.Error(), `"code": 50`) ||
		!strings.Contains(err.Error(), "no address is free") {
		t.Errorf("an exhausted range: %v", err)
	}
}

// kill -9 anywhere in ADD and DEL; then GC removes everything.
func TestKilledAnywhereThenCollected(t *testing.T) {
	h := newHost(t, `,"lazyUnlink":true`)
	netns := testenv.Netns(t)
	for i := range 60 {
		id := fmt.Sprintf("pod-%d", i)
		for _, verb := range []string{"ADD", "DEL"} {
			h.in(h.netns, func() error {
				c := h.command(verb, id, netns, h.config(twoPorts))
				c.Stdout = io.Discard
				if err := c.Start(); err != nil {
					return err
				}

				time.AfterFunc(time.Duration(rand.IntN(25))*time.Millisecond, func() { _ = c.Process.Kill() })
				_ = c.Wait()
				return nil
			})
		}

		// A runtime calls DEL until it succeeds.
		if i%10 == 0 {
			h.must("DEL", id, netns, h.config(twoPorts))
		}
	}

	h.must("GC", "", "", h.config(`,"cni.dev/valid-attachments":[]`))
	if left := h.leftovers(); left != "" {
		t.Error(left)
	}

	h.must("ADD", "after", netns, h.config(twoPorts))
}

func TestManyAtOnce(t *testing.T) {
	h := newHost(t, "")
	const pods = 60
	namespaces := make([]string, pods)
	for i := range namespaces {
		namespaces[i] = testenv.Netns(t)
	}

	all := func(verb string) {
		var group sync.WaitGroup
		for i := range pods {
			group.Go(func() {
				const format = `{"hostPort":%d,"containerPort":80,"protocol":"udp"}`
				config := h.config(ports(fmt.Sprintf(format, 20000+i)))
				if _, err := h.call(verb, fmt.Sprintf("pod-%d", i), namespaces[i], config); err != nil {
					t.Error(err)
				}
			})
		}

		group.Wait()
	}

	all("ADD")
	all("DEL")
	if left := h.leftovers(); left != "" {
		t.Error(left)
	}
}

func TestTheTypeOfTheConfigurationIsServedToo(t *testing.T) {
	h := newHost(t, "")
	netns := testenv.Netns(t)
	h.must("ADD", "a", netns, `{"cniVersion":"1.0.0","name":"lo","type":"loopback"}`)
	h.in(netns, func() error {
		_, err := net.Listen("tcp", "127.0.0.1:0")
		return err
	})

	config := fmt.Sprintf(`{"cniVersion":"0.4.0","name":"pool","type":"host-local",
		"ipam":{"type":"host-local","dataDir":%q,"subnet":"10.7.0.0/24"}}`, h.dataDir)
	var result struct {
		IPs []struct{ Version, Address string }
	}
	out := h.must("ADD", "a", netns, config)
	if err := json.Unmarshal([]byte(out), &result); err != nil {
		t.Fatal(err)
	}
	if len(result.IPs) != 1 || result.IPs[0].Version != "4" || result.IPs[0].Address != "10.7.0.2/24" {
		t.Errorf("%+v", result)
	}

	h.must("DEL", "a", "", config)
}
