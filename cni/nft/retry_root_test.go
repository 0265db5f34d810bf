package nft

import (
	"errors"
	"testing"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/internal/namespace"
	"github.com/trivet-node/trivet/internal/testenv"
)

func TestARefusedTransactionSaysWhere(t *testing.T) {
	testenv.Root(t)
	err := namespace.Do(func() error {
		var failure error
		for range 2 {
			c, err := Begin()
			if err != nil {
				return err
			}
			c.CreateTable(&nftables.Table{Name: "once", Family: nftables.TableFamilyINet})
			failure = c.Flush()
		}

		refused, ok := errors.AsType[*netlink.OpError](failure)
		if !ok || refused.Offset == 0 || !errors.Is(failure, unix.EEXIST) || !IsRace(failure) {
			t.Errorf("a table that is there: %v", failure)
		}
		return nil
	}, testenv.Netns(t))
	if err != nil {
		t.Error(err)
	}
}
