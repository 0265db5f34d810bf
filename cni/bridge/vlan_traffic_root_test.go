package bridge

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/cni/ipam"
	"github.com/trivet-node/trivet/cni/rtnl"
	"github.com/trivet-node/trivet/cni/rtnl/rtnltest"
	"github.com/trivet-node/trivet/internal/namespace"
	"github.com/trivet-node/trivet/internal/testenv"
)

// vlanPod is a pod that answers at port 80.
type vlanPod struct {
	Attachment
	config Config
	ends   Ends
}

// withVLANs runs a test in the network namespace of a pretended host. It is skipped where the kernel has no
// VLANs on bridges, unless TRIVET_VLANS says that it has, as in a virtual machine of make vm.
func withVLANs(t *testing.T, f func(host *rtnl.Conn) error) {
	t.Helper()
	var lacks error
	rtnltest.Host(t, func(host *rtnl.Conn) error {
		err := f(host)
		if errors.Is(err, unix.EOPNOTSUPP) && os.Getenv("TRIVET_VLANS") == "" {
			lacks = err
			return nil
		}
		return err
	})
	if lacks != nil {
		t.Skipf("runs on a kernel with VLANs on bridges, by make vm: %v", lacks)
	}
}

// inVLANs attaches a pod to br0 in some VLANs, and has it answer.
func inVLANs(t *testing.T, host *rtnl.Conn, id, address string, v VLANs) (p vlanPod, err error) {
	t.Helper()
	p = vlanPod{
		config: Config{
			Network:   "test",
			Name:      "br0",
			IsGateway: v.ID == 100,
			VLANs:     v,
		},
		Attachment: Attachment{
			Owner:     ipam.Owner{ContainerID: id, IfName: "eth0"},
			Netns:     testenv.Netns(t),
			Addresses: []Address{{Prefix: netip.MustParsePrefix(address + "/24")}},
		},
	}
	if p.config.IsGateway {
		p.Addresses[0].Gateway = netip.MustParseAddr("10.1.0.1")
	}
	if p.ends, err = Attach(host, p.config, p.Attachment); err != nil {
		return p, err
	}

	return p, namespace.Do(func() error {
		l, err := net.Listen("tcp", ":80")
		if err == nil {
			t.Cleanup(func() { _ = l.Close() })
		}
		return err
	}, p.Netns)
}

// reaches reports whether what is in a network namespace connects to an address: in that of the calling
// thread, which is the host's, for "". What should has more time: on a busy machine it may take longer.
func reaches(netns, address string, should bool) bool {
	limit := time.Second
	if should {
		limit = time.Minute
	}
	connect := func() error {
		conn, err := net.DialTimeout("tcp", net.JoinHostPort(address, "80"), limit)
		if err == nil {
			_ = conn.Close()
		}
		return err
	}
	if netns == "" {
		return connect() == nil
	}
	return namespace.Do(connect, netns) == nil
}

// tag gives a pod an interface for packets with a tag, and an address there.
func (p vlanPod) tag(vlan int, address string) error {
	script := fmt.Sprintf(`ip link add link eth0 name tagged%d type vlan id %d
		ip addr add %s/24 dev tagged%d; ip link set tagged%d up`, vlan, vlan, address, vlan, vlan)
	return namespace.Do(func() error {
		out, err := exec.Command("sh", "-ec", script).CombinedOutput()
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	}, p.Netns)
}

func TestVLANsKeepPodsOfOneBridgeApart(t *testing.T) {
	testenv.Program(t, "ip", "iproute2")
	withVLANs(t, func(host *rtnl.Conn) error {
		one, err := inVLANs(t, host, "one", "10.1.0.2", VLANs{ID: 100})
		if err != nil {
			return err
		}

		two, err := inVLANs(t, host, "two", "10.1.0.3", VLANs{ID: 100})
		other, errOther := inVLANs(t, host, "other", "10.1.0.4", VLANs{ID: 200})
		tagged := VLANs{Trunk: []rtnl.VLAN{{First: 100, Last: 101}}}
		trunk, errTrunk := inVLANs(t, host, "trunk", "10.9.0.5", tagged)
		err = errors.Join(err, errOther, errTrunk, trunk.tag(100, "10.1.0.5"), trunk.tag(200, "10.1.0.6"))
		if err != nil {
			return err
		}

		for _, c := range []struct {
			from, to string
			want     bool
		}{
			{one.Netns, "10.1.0.3", true},
			{two.Netns, "10.1.0.2", true},
			{one.Netns, "10.1.0.4", false},
			{other.Netns, "10.1.0.2", false},
			// The gateway is in VLAN 100, and is the host.
			{"", "10.1.0.2", true},
			{"", "10.1.0.4", false},
			// The trunk has 100 and 101 with their tags, and not 200.
			{one.Netns, "10.1.0.5", true},
			{trunk.Netns, "10.1.0.2", true},
			{other.Netns, "10.1.0.6", false},
		} {
			if got := reaches(c.from, c.to, c.want); got != c.want {
				t.Errorf("%q reaches %s: %v, want %v", c.from, c.to, got, c.want)
			}
		}

		return passAndGo(t, host, one, two, other, trunk)
	})
}

// passAndGo checks that pods pass CHECK, and detaches them.
func passAndGo(t *testing.T, host *rtnl.Conn, pods ...vlanPod) error {
	t.Helper()
	for _, p := range pods {
		if err := Check(host, p.config, p.Attachment); err != nil {
			t.Errorf("%s: %v", p.Owner, err)
		}
		if there, err := Detach(host, "test", p.Owner, false); err != nil || !there {
			return fmt.Errorf("detach %s: %v, %w", p.Owner, there, err)
		}
	}
	return nil
}

func TestADefaultVLANIsKeptOnRequest(t *testing.T) {
	withVLANs(t, func(host *rtnl.Conn) error {
		leaves, err := inVLANs(t, host, "leaves", "10.1.0.2", VLANs{ID: 100})
		if err != nil {
			return err
		}
		keeps, err := inVLANs(t, host, "keeps", "10.1.0.3", VLANs{ID: 100, KeepDefault: true})
		if err != nil {
			return err
		}

		for _, c := range []struct {
			pod  vlanPod
			want string
		}{
			{leaves, "[{100 100 true}]"},
			{keeps, "[{1 1 false} {100 100 true}]"},
		} {
			link, err := host.LinkByName(c.pod.ends.Host.Name)
			if err != nil {
				return err
			}
			vlans, err := host.VLANs(link.Index)
			if got := fmt.Sprint(vlans); err != nil || got != c.want {
				t.Errorf("%s: %s, %v, want %s", c.pod.Owner, got, err, c.want)
			}
		}

		// Somebody takes the last one out.
		link, err := host.LinkByName(keeps.ends.Host.Name)
		if err == nil {
			err = host.Must(rtnl.DeleteVLAN(link.Index, rtnl.VLAN{First: 100, Last: 100}))
		}
		if err == nil && Check(host, keeps.config, keeps.Attachment) == nil {
			t.Error("a port that is not in its VLAN any more passes CHECK")
		}
		return err
	})
}
