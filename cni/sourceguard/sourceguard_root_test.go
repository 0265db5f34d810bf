package sourceguard

import (
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"testing"

	"github.com/trivet-node/trivet/cni/rtnl"
	"github.com/trivet-node/trivet/cni/rtnl/rtnltest"
	"github.com/trivet-node/trivet/internal/testenv"
)

func TestTheKernelTellsTheGuardThatItHas(t *testing.T) {
	rtnltest.Link(t, func(host *rtnl.Conn, link rtnl.Link) error {
		g := guardOf("10.88.0.2", "fd88::2")
		if err := g.Check(host, link); err == nil || !strings.Contains(err.Error(), "from any address") {
			t.Errorf("without a guard: %v", err)
		}
		if err := g.Ensure(host, link.Index); err != nil {
			return err
		}
		err := guardOf("10.88.0.3").Check(host, link)
		if err == nil || !strings.Contains(err.Error(), "from others than 0a:58:0a:58:00:02 [10.88.0.3]") {
			t.Errorf("another guard: %v", err)
		}
		return g.Check(host, link)
	})

	if err := Try(); err != nil {
		t.Error(err)
	}
}

// Agents that look at pods' traffic attach programs in this way.
func TestAgentsOfOthersLeaveTheGuard(t *testing.T) {
	tc := testenv.Program(t, "tc", "iproute2")
	agent := func(words string, more ...string) error {
		out, err := exec.Command(tc, append(strings.Fields(words), more...)...).CombinedOutput()
		if err != nil {
			err = fmt.Errorf("tc %s: %w: %s", words, err, out)
		}
		return err
	}
	filters := func(direction string) error {
		// One instruction: return TC_ACT_OK.
		const filter = "filter add dev br0 %s prio 5 protocol all bpf da bytecode"
		return agent(fmt.Sprintf(filter, direction), "1,6 0 0 0")
	}

	g := guardOf("10.88.0.2")
	rtnltest.Link(t, func(host *rtnl.Conn, link rtnl.Link) error {
		if err := g.Ensure(host, link.Index); err != nil {
			return err
		}
		err := errors.Join(agent("qdisc replace dev br0 clsact"), filters("ingress"), filters("egress"))
		return errors.Join(err, g.Check(host, link))
	})
	rtnltest.Link(t, func(host *rtnl.Conn, link rtnl.Link) error {
		err := errors.Join(agent("qdisc add dev br0 clsact"), filters("ingress"))
		return errors.Join(err, g.Ensure(host, link.Index), g.Check(host, link))
	})

	// A discipline that has no place for what leaves serves as well.
	rtnltest.Link(t, func(host *rtnl.Conn, link rtnl.Link) error {
		err := agent("qdisc add dev br0 ingress")
		return errors.Join(err, g.Ensure(host, link.Index), g.Check(host, link))
	})
}

// BenchmarkEnsure is what the guard of a pod of two addresses costs ADD, with the look for its veth, where
// there is another pod: with the first one of a host, the kernel patches its code.
func BenchmarkEnsure(b *testing.B) {
	rtnltest.Link(b, func(host *rtnl.Conn, link rtnl.Link) error {
		g := guardOf("10.88.0.2", "fd88::2")
		const lo = 1
		if err := g.Ensure(host, lo); err != nil {
			return err
		}

		for b.Loop() {
			found, err := host.LinkByName(link.Name)
			if err == nil {
				err = g.Ensure(host, found.Index)
			}
			if err != nil {
				return err
			}

			b.StopTimer()
			if err := host.Must(rtnl.DeleteIngress(link.Index)); err != nil {
				return err
			}
			b.StartTimer()
		}
		return nil
	})
}
