package netd

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/trivet-node/trivet/cni/netd/podcidr"
	"github.com/trivet-node/trivet/cni/nft"
	"github.com/trivet-node/trivet/internal/namespace"
	"github.com/trivet-node/trivet/internal/testenv"
)

// What only policies need does not stop the look at a node without them.
func TestWithoutPoliciesOnlyTheirTablesAreLookedFor(t *testing.T) {
	testenv.Root(t)
	testenv.Program(t, "nft", "nftables")
	x := examination{cfg: Config{Network: "test", Bridge: "a/b"}}
	if _, err := x.cfg.enforcer(); err == nil {
		t.Fatal("there is a pool for this bridge")
	}

	look := func(policies bool) (said string) {
		x.found, x.cfg.Policies = nil, policies
		x.policies(t.Context(), nil, podcidr.Node{})
		for _, f := range x.found {
			said += f.String() + "\n"
		}
		return said
	}
	err := namespace.Do(func() error {
		if said := look(false); said != "" {
			t.Errorf("without policies: %s", said)
		}
		if said := look(true); !strings.Contains(said, "wrong") || !strings.Contains(said, "a/b") {
			t.Errorf("with policies: %s", said)
		}

		left := nft.TableName("policy_", "test")
		if out, err := exec.Command("nft", "add table inet "+left).CombinedOutput(); err != nil {
			t.Errorf("%s, %v", out, err)
		}
		if said := look(false); !strings.Contains(said, left+" is there") {
			t.Errorf("without policies, which an earlier run had: %s", said)
		}
		return nil
	}, testenv.Netns(t))
	if err != nil {
		t.Fatal(err)
	}
}
