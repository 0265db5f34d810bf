// Package chained has the plugins that work on what those before them in the chain have made, one file each.
package chained

import (
	"context"
	"errors"
	"os"

	"github.com/trivet-node/trivet/cni/conf"
	"github.com/trivet-node/trivet/cni/conf/meta"
	"github.com/trivet-node/trivet/cni/plugin/call"
	"github.com/trivet-node/trivet/cni/rtnl"
	"github.com/trivet-node/trivet/internal/namespace"
	"github.com/trivet-node/trivet/internal/undo"
)

// Tuning is upstream's plugin of that name: it changes sysctls of the container's network namespace and
// attributes of its interface.
type Tuning struct{}

// inPod calls f with a connection in the network namespace of the container, and with its interface.
func inPod(c *call.Call, f func(pod *rtnl.Conn, link rtnl.Link) error) error {
	return namespace.Visit(func() error {
		pod, err := rtnl.Open()
		if err != nil {
			return err
		}
		defer func() { _ = pod.Close() }()

		link, err := pod.LinkByName(c.Owner.IfName)
		if err != nil {
			return err
		}

		return f(pod, link)
	}, c.Netns)
}

// Add changes the settings. When one is refused, the interface gets its own ones back.
func (Tuning) Add(c *call.Call) (err error) {
	t, err := meta.ReadTuning(c.Stdin, c.Args)
	if err != nil {
		return err
	}
	if err := c.RequirePrevious(); err != nil {
		return err
	}
	if err := t.Settings.Allowed(); err != nil {
		return err
	}

	err = namespace.Visit(func() error { return t.Settings.SetSysctls(c.Owner.IfName) }, c.Netns)
	if err == nil && t.Settings.ChangesInterface() {
		err = tune(c, t)
	}
	if err != nil {
		return err
	}

	// Those who look at the interface later compare it with the result.
	if own := c.PreviousInterface(); own != nil {
		if t.Settings.MAC != nil {
			own.Mac = t.Settings.MAC.String()
		}
		if t.Settings.MTU != 0 && own.Mtu != 0 {
			own.Mtu = t.Settings.MTU
		}
	}

	return c.Print(c.Previous)
}

// tune changes the interface, after what it has was kept.
func tune(c *call.Call, t *meta.Tuning) error {
	return inPod(c, func(pod *rtnl.Conn, link rtnl.Link) (err error) {
		var back undo.Stack
		defer back.Unwind(context.Background(), &err)
		if err := t.Backups.Save(c.Name, c.Owner, link, t.Settings); err != nil {
			return err
		}

		back.Push("restore interface", func(context.Context) error {
			return errors.Join(t.Backups.Restore(pod, c.Owner), t.Backups.Remove(c.Owner))
		})

		return t.Settings.SetInterface(pod, link)
	})
}

// Check returns an error that names the first setting that is not as Add made it.
func (Tuning) Check(c *call.Call) error {
	t, err := meta.ReadTuning(c.Stdin, c.Args)
	if err != nil {
		return err
	}
	if err := c.RequirePrevious(); err != nil {
		return err
	}
	return inPod(c, func(_ *rtnl.Conn, link rtnl.Link) error { return t.Settings.Check(link) })
}

// Del gives the interface back what it had. Without the namespace there is nothing left but what was kept
// of it.
func (Tuning) Del(c *call.Call) error {
	b, err := meta.ReadTuningBackups(c.Stdin)
	if err != nil {
		return err
	}

	if c.HasNetns() {
		err = namespace.Visit(func() error {
			pod, err := rtnl.Open()
			if err != nil {
				return err
			}
			defer func() { _ = pod.Close() }()
			return b.Restore(pod, c.Owner)
		}, c.Netns)
	}

	return errors.Join(err, b.Remove(c.Owner))
}

// GC removes what is kept of attachments that the runtime does not have.
func (Tuning) GC(c *call.Call) error {
	t, err := conf.ReadTeardown(c.Stdin)
	if err != nil || t.Valid == nil {
		return err
	}
	b, err := meta.ReadTuningBackups(c.Stdin)
	if err != nil {
		return err
	}
	return b.Keep(t.Network, t.Valid.Owners())
}

// Status returns an error when the configuration makes no sense, or what interfaces had cannot be kept.
func (Tuning) Status(c *call.Call) error {
	t, err := meta.ReadTuning(c.Stdin, "")
	if err != nil || !t.Settings.ChangesInterface() {
		return err
	}
	return os.MkdirAll(t.Backups.Dir, 0o700)
}
