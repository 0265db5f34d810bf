package rtnl_test

import (
	"testing"

	"github.com/trivet-node/trivet/cni/rtnl"
	"github.com/trivet-node/trivet/internal/namespace"
	"github.com/trivet-node/trivet/internal/testenv"
)

func TestListThatTheKernelCannotMakeIsAnError(t *testing.T) {
	testenv.Root(t)
	err := namespace.Do(func() error {
		c, err := rtnl.Open()
		if err != nil {
			return err
		}
		if have, err := c.Addresses(4711); !rtnl.Gone(err) {
			t.Errorf("addresses of an interface that is not there: %v, %v", have, err)
		}

		return c.Close()
	}, testenv.Netns(t))
	if err != nil {
		t.Error(err)
	}
}
