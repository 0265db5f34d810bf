package target

import (
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Options are those of mount(8), sorted by who understands them: attributes belong to the mount, the rest to
// the file system.
type Options struct {
	ReadOnly bool
	FS       []string // of the file system: "KEY" or "KEY=VALUE"

	attributes attributes
}

// attributes are those that mount_setattr(2) sets and clears, in this order: clearing comes first.
type attributes struct{ set, clear uint64 }

// and returns the attributes that a and, after it, b lead to.
func (a attributes) and(b attributes) attributes {
	return attributes{
		set:   a.set&^b.clear | b.set,
		clear: a.clear | b.clear,
	}
}

// byOption has the options that are attributes of a mount.
var byOption = map[string]attributes{
	"suid":        {clear: unix.MOUNT_ATTR_NOSUID},
	"nosuid":      {set: unix.MOUNT_ATTR_NOSUID},
	"dev":         {clear: unix.MOUNT_ATTR_NODEV},
	"nodev":       {set: unix.MOUNT_ATTR_NODEV},
	"exec":        {clear: unix.MOUNT_ATTR_NOEXEC},
	"noexec":      {set: unix.MOUNT_ATTR_NOEXEC},
	"noatime":     {set: unix.MOUNT_ATTR_NOATIME, clear: unix.MOUNT_ATTR__ATIME},
	"relatime":    {clear: unix.MOUNT_ATTR__ATIME},
	"strictatime": {set: unix.MOUNT_ATTR_STRICTATIME, clear: unix.MOUNT_ATTR__ATIME},
	"nodiratime":  {set: unix.MOUNT_ATTR_NODIRATIME},
	"diratime":    {clear: unix.MOUNT_ATTR_NODIRATIME},
}

// dropped are options that tell mount(8) and the boot what to do, and those without a meaning.
var dropped = []string{
	"", "defaults", "_netdev", "auto", "noauto", "fail", "nofail",
	"user", "nouser", "users", "nousers", "owner", "noowner", "group", "nogroup",
}

func isDropped(option string) bool {
	return slices.Contains(dropped, option) || strings.HasPrefix(option, "x-") ||
		strings.HasPrefix(option, "X-") || strings.HasPrefix(option, "comment=")
}

// ParseOptions sorts options, each of which may hold several separated by commas. Where they contradict each
// other, the last one counts. Those that are for mount(8) alone are dropped.
func ParseOptions(options []string) Options {
	var o Options
	for _, list := range options {
		for option := range strings.SplitSeq(list, ",") {
			a, isAttribute := byOption[option]
			switch {
			case isDropped(option):
			case option == "ro":
				o.ReadOnly = true
			case option == "rw":
				o.ReadOnly = false
				o.attributes = o.attributes.and(attributes{clear: unix.MOUNT_ATTR_RDONLY})
			case isAttribute:
				o.attributes = o.attributes.and(a)
			default:
				o.FS = append(o.FS, option)
			}
		}
	}

	return o
}

// all returns the attributes together with ReadOnly.
func (o Options) all() attributes {
	if o.ReadOnly {
		return o.attributes.and(attributes{set: unix.MOUNT_ATTR_RDONLY})
	}
	return o.attributes
}
