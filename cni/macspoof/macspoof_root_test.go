package macspoof

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/cni/ipam"
	"github.com/trivet-node/trivet/cni/rtnl"
	"github.com/trivet-node/trivet/internal/namespace"
	"github.com/trivet-node/trivet/internal/testenv"
)

func guard(id, veth string) Guard {
	return Guard{
		Owner: ipam.Owner{ContainerID: id, IfName: "eth0"},
		Veth:  veth,
		MAC:   net.HardwareAddr{2, 0, 0, 0, 0, 1},
	}
}

func TestAKernelWithoutFiltersOfBridgesIsNamed(t *testing.T) {
	for err, want := range map[error]bool{
		unix.ENOENT:     true,
		unix.EOPNOTSUPP: true,
		unix.EPERM:      false,
	} {
		got := explain(fmt.Errorf("write: %w", err))
		if !errors.Is(got, err) || strings.Contains(got.Error(), "nf_tables_bridge") != want {
			t.Errorf("%v is explained as %v", err, got)
		}
	}
}

func TestKeepRemovesOnlyRulesOfInterfacesThatTheKernelDoesNotHave(t *testing.T) {
	testenv.Root(t)
	err := namespace.Do(func() error {
		there, gone := guard("there", "lo"), guard("gone", "gone0")
		for _, g := range []Guard{there, gone} {
			if err := g.Ensure(); err != nil {
				return err
			}
		}

		host, err := rtnl.Open()
		if err != nil {
			return err
		}
		if err := Keep(host); err != nil {
			return err
		}
		if there.Check() != nil || gone.Check() == nil {
			t.Errorf("there: %v, gone: %v", there.Check(), gone.Check())
		}

		// Who cannot ask the kernel does not know what is gone.
		if err := gone.Ensure(); err != nil {
			return err
		}
		if err := host.Close(); err != nil {
			return err
		}
		if Keep(host) == nil {
			t.Error("a connection that is closed answers")
		}

		return gone.Check()
	}, testenv.Netns(t))
	if err != nil {
		t.Error(err)
	}
}
