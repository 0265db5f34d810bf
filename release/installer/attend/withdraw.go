package attend

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/trivet-node/trivet/release/installer/drain"
)

// takeLimit is how long the machine may take to begin with an order.
const takeLimit = 2 * time.Minute

// withdraw takes an order back that the machine has not begun with: its service may not be written, or its
// program not be executed there, and the node would be out of use without an end.
func (a *Attendant) withdraw(ctx context.Context, v view) error {
	if err := a.host.Cancel(ctx); err != nil {
		return err
	}
	now, err := a.folder.Record()
	if err != nil || now.Order.ID == v.order.ID {
		// It has begun meanwhile, and goes on.
		return err
	}
	if err := a.folder.Withdraw(); err != nil {
		return err
	}

	text := fmt.Sprintf("the machine has not begun within %s: journalctl -u trivet-installer-%s",
		takeLimit, a.cfg.Part)
	a.say(corev1.EventTypeWarning, "NotBegun", text)
	a.notBefore = time.Now().Add(a.cfg.Pause)
	return a.release(ctx, v.node, drain.Change{})
}
