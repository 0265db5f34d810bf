package daemon

import (
	"path"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/cri/monitor/wire"
)

// oomKilled tells whether the OOM killer struck in the container's group. systemd removes the group of a
// scope, and the kernel's count with it, when it hears that it is empty, which may be before we do. On cgroup
// v2 the pod's group has the count of all its containers; it serves for one that was killed.
func (d *Daemon) oomKilled(c *container, exit wire.Exit) bool {
	if c.record.Cgroup == "" {
		return false
	}
	if kills, err := d.cgroups.OOMKills(c.record.Cgroup); err == nil {
		return kills > 0
	}

	wasKilled := exit.Code == 128+int(unix.SIGKILL)
	return wasKilled && d.killsBefore(c.record.Cgroup) > c.kills
}

// killsBefore is the number of OOM kills up to now in the group above a container's; on cgroup v1, which does
// not count them there, none.
func (d *Daemon) killsBefore(group string) uint64 {
	if !d.cgroups.V2 || group == "" {
		return 0
	}
	kills, err := d.cgroups.OOMKills(path.Dir(group))
	if err != nil {
		return 0
	}
	return kills
}
