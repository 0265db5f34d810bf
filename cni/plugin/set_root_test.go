package plugin_test

import (
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/trivet-node/trivet/internal/testenv"
)

// set is a list of plugins for each backend.
func (h *host) set(backend string, port int) []string {
	ports := fmt.Sprintf(`"runtimeConfig":{"portMappings":[{"hostPort":%d,"containerPort":80}]}`, port)
	return []string{
		h.bridgePlugin(`,"ipMasq":true,"macspoofchk":true,"ipMasqBackend":"` + backend + `"`),
		`"type":"portmap","backend":"` + backend + `",` + ports,
		`"type":"firewall","backend":"` + backend + `"`,
		fmt.Sprintf(`"type":"tuning","dataDir":%q,"mtu":1300`, h.dataDir+"/tuning"),
		`"type":"bandwidth","ingressRate":800000,"ingressBurst":800000,
			"egressRate":800000,"egressBurst":800000`,
	}
}

// kill -9 anywhere in ADD and DEL of any plugin; then GC removes everything.
func TestTheSetKilledAnywhereThenCollected(t *testing.T) {
	for _, backend := range []string{"nftables", "iptables"} {
		t.Run(backend, func(t *testing.T) {
			h := newHost(t, "")
			plugins := h.set(backend, 8080)
			for i := range 8 {
				c := &chain{
					host:    h,
					id:      fmt.Sprintf("pod-%d", i),
					netns:   testenv.Netns(t),
					plugins: plugins,
				}
				c.addWithKill(i % len(plugins))
			}

			slices.Reverse(plugins)
			h.gc(plugins...)
			if left := h.remains(); left != "" {
				t.Error(left)
			}

			after := h.newChain("after", h.set(backend, 8080)...)
			if err := after.check(); err != nil {
				t.Error(err)
			}
		})
	}
}

// addWithKill calls the plugins in turn, and kills one at some instant, in ADD and in DEL.
func (c *chain) addWithKill(victim int) {
	for i, p := range c.plugins {
		if i == victim {
			c.killed("ADD", c.config(p))
			c.killed("DEL", c.config(p))
			return
		}

		out, err := c.call("ADD", c.id, c.netns, c.config(p))
		if err != nil {
			// A host port that a killed call has left is taken until GC.
			if !strings.Contains(err.Error(), "taken") {
				c.t.Error(err)
			}
			return
		}

		c.result = out
	}
}

func (c *chain) killed(verb, config string) {
	c.in(c.host.netns, func() error {
		cmd := c.command(verb, c.id, c.netns, config)
		cmd.Stdout = io.Discard
		if err := cmd.Start(); err != nil {
			return err
		}

		time.AfterFunc(time.Duration(rand.IntN(40))*time.Millisecond, func() { _ = cmd.Process.Kill() })
		_ = cmd.Wait()
		return nil
	})
}

func TestManyOfTheSetAtOnce(t *testing.T) {
	for _, backend := range []string{"nftables", "iptables"} {
		t.Run(backend, func(t *testing.T) {
			h := newHost(t, "")
			const pods = 32
			var group sync.WaitGroup
			chains := make([]*chain, pods)
			for i := range pods {
				chains[i] = &chain{
					host:    h,
					id:      fmt.Sprintf("pod-%d", i),
					netns:   testenv.Netns(t),
					plugins: h.set(backend, 20000+i),
				}
			}

			for _, c := range chains {
				group.Go(func() {
					for _, p := range c.plugins {
						out, err := c.call("ADD", c.id, c.netns, c.config(p))
						if err != nil {
							t.Error(err)
							return
						}
						c.result = out
					}
				})
			}

			group.Wait()
			for _, c := range chains {
				if err := c.check(); err != nil {
					t.Error(err)
				}
			}

			for _, c := range chains {
				group.Go(func() {
					for _, p := range slices.Backward(c.plugins) {
						if _, err := c.call("DEL", c.id, c.netns, c.config(p)); err != nil {
							t.Error(err)
						}
					}
				})
			}

			group.Wait()
			if left := h.remains(); left != "" {
				t.Error(left)
			}
		})
	}
}
