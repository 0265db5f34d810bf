package addresses

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/containernetworking/cni/pkg/invoke"

	"github.com/trivet-node/trivet/cni/plugin/call"
	"github.com/trivet-node/trivet/internal/undo"
)

// Delegate is an IPAM plugin that this program does not have, such as dhcp: the program of its name in
// CNI_PATH gets the call as it came.
type Delegate struct{ Type string }

// Reserve has the other plugin allocate addresses. It is called to release them also when it fails: it may
// have allocated some before.
func (d Delegate) Reserve(c *call.Call, back *undo.Stack) (Allocation, error) {
	back.Push("release addresses", func(ctx context.Context) error {
		return d.named(invoke.DelegateDel(ctx, d.Type, c.Stdin, nil))
	})

	answer, err := invoke.DelegateAdd(context.Background(), d.Type, c.Stdin, nil)
	if err != nil {
		return Allocation{}, d.named(err)
	}

	a, err := fromResult(answer)
	return a, d.named(err)
}

// Check has the other plugin look at the addresses.
func (d Delegate) Check(c *call.Call) error {
	return d.named(invoke.DelegateCheck(context.Background(), d.Type, c.Stdin, nil))
}

// Del has the other plugin release the addresses. One that is not there cannot be asked, and DEL takes
// apart the rest.
func (d Delegate) Del(c *call.Call) error {
	if !d.installed() {
		return nil
	}
	return d.named(invoke.DelegateDel(context.Background(), d.Type, c.Stdin, nil))
}

// GC has the other plugin release what attachments hold that the runtime does not have.
func (d Delegate) GC(c *call.Call) error {
	if !d.installed() {
		return nil
	}
	return d.named(invoke.DelegateGC(context.Background(), d.Type, c.Stdin, nil))
}

// Status asks the other plugin whether it can allocate addresses.
func (d Delegate) Status(c *call.Call) error {
	return d.named(invoke.DelegateStatus(context.Background(), d.Type, c.Stdin, nil))
}

func (d Delegate) installed() bool {
	_, err := invoke.FindInPath(d.Type, filepath.SplitList(os.Getenv("CNI_PATH")))
	return err == nil
}

// named says in an error which plugin it is of. The other plugin's own code stays in it.
func (d Delegate) named(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("ipam plugin %s: %w", d.Type, err)
}
