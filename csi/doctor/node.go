package doctor

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/trivet-node/trivet/csi/btrfs"
	"github.com/trivet-node/trivet/csi/datadir"
	"github.com/trivet-node/trivet/csi/survey"
	"github.com/trivet-node/trivet/internal/units"
)

// packages are the Debian packages of the mkfs programs.
var packages = map[string]string{"btrfs": "btrfs-progs", "ext4": "e2fsprogs", "xfs": "xfsprogs"}

// lacking says what cannot be without the mkfs programs.
var lacking = map[string]string{
	"btrfs": "it is missing: no new pool",
	"ext4":  "it is missing: no new volumes with ext4",
	"xfs":   "it is missing: no new volumes with xfs",
}

// kernel says what kernel and node do not offer.
func (d *diagnosis) kernel() {
	k := d.Kernel
	object := "kernel " + k.Release
	before := len(d.found)

	if k.Mounts != nil {
		d.wrong(object, "use Linux 5.12 or newer", "volumes cannot be mounted: %v", k.Mounts)
	}
	if !k.SysAdmin {
		d.wrong("capabilities", "run the driver, and this, with all of root's", "CAP_SYS_ADMIN is missing")
	}
	if !k.Loop {
		d.wrong(object, "modprobe loop, or give the container /dev",
			"there is no /dev/loop-control: no volumes in images, and no pool unless the disk is btrfs")
	}

	switch {
	case !k.Btrfs:
		d.note(object, "modprobe btrfs", "btrfs is not loaded: no snapshots, and image files only")
	case !k.SimpleQuota:
		d.note(object, "use Linux 6.7 or newer for simple quotas",
			"qgroups are used: a full volume cannot be written over once it has had a snapshot")
	}

	for _, fs := range survey.FileSystems {
		if k.Mkfs[fs] == "" {
			d.note("mkfs."+fs, "install Debian package "+packages[fs], "%s", lacking[fs])
		}
	}

	if !k.SysResource {
		d.note("capabilities", "", "CAP_SYS_RESOURCE is missing: ext4 grows only while no pod uses it")
	}
	if k.Encryption != nil {
		d.note(object, "", "no encrypted volumes: %v", k.Encryption)
	}
	if k.IOLimits == "" {
		d.note(object, "", "no control groups with a controller of I/O: the I/O of volumes cannot be limited")
	}

	if len(d.found) == before {
		d.ok(object, "btrfs with simple quotas, loop devices, mkfs of %s, limits of I/O by %s",
			strings.Join(slices.Sorted(maps.Keys(k.Mkfs)), ", "), k.IOLimits)
	}
}

// driver says whether one runs.
func (d *diagnosis) driver() {
	switch {
	case !d.Driver.Runs:
		d.note("driver", "", "none answers on %s: pods go on, and the pool does not grow", d.Driver.Socket)
	case d.Driver.Err != nil:
		d.wrong("driver", "look at its log", "%v", d.Driver.Err)
	default:
		d.ok("driver", "answers on %s", d.Driver.Socket)
	}
	if d.Driver.CalledByOthers != "" {
		d.note("driver", "if that is a sidecar, end it, or leave its work out of --controllers",
			"its own controllers are not the only ones that call %s", d.Driver.CalledByOthers)
	}
}

// disk says whether what was promised is there.
func (d *diagnosis) disk() {
	object := "disk of " + d.DataDir
	if m, ok := errors.AsType[*datadir.Mismatch](d.Place); ok {
		d.wrong(object, m.Do, "%s", m.What)
	} else if d.Place != nil {
		d.wrong(object, "look at the kernel's log", "%v", d.Place)
	}

	sum := int64(0)
	for _, bytes := range d.Promised() {
		sum += bytes
	}

	// What the pool has, and what image files have, is taken from the disk already.
	there := max(0, d.Disk.Free-d.Reserve)
	if d.Pool.Is != nil {
		there += d.Pool.Is.Allocated
	}
	if d.Pool.InDisk {
		there += d.usedInPool()
	}
	for _, file := range d.Images {
		there += file.Allocated
	}
	for id, v := range d.Quota.Volumes {
		// What a pod takes beyond the size is there for nobody.
		if r, known := d.Records[id]; known && r.Err == nil {
			there += min(v.Used, r.Size)
		}
	}

	text := fmt.Sprintf("%s promised to volumes, %s there for them (%s of %s free, %s in reserve)",
		units.Bytes(sum), units.Bytes(there), units.Bytes(d.Disk.Free), units.Bytes(d.Disk.Size),
		units.Bytes(d.Reserve))
	switch {
	case sum > there:
		d.wrong(object, "make room on the disk, or delete volumes: their writes may fail", "%s", text)
	case d.PoolSize > 0 && sum > d.PoolSize:
		d.wrong(object, "enlarge --pool-size, or delete volumes",
			"%s; more than --pool-size %s", text, units.Bytes(d.PoolSize))
	case d.Disk.Free < d.Reserve:
		d.wrong(object, "make room on the disk", "less is free than its reserve: %s", text)
	default:
		d.ok(object, "%s", text)
	}
}

func (d *diagnosis) usedInPool() int64 {
	sum := int64(0)
	for _, v := range d.Pool.Volumes {
		sum += v.Used
	}
	return sum
}

// pool says what is wrong with the pool as a whole.
func (d *diagnosis) pool() {
	p := d.Pool
	object := "pool " + p.Path
	if p.InDisk {
		object = "pool " + p.Root
	}
	before := len(d.found)

	if p.Err != nil {
		d.wrong(object, "look at the kernel's log", "it cannot be looked at: %v", p.Err)
	}
	if !p.InDisk && p.Is == nil && p.ID != "" {
		d.wrong(object, "bring it back; if it is lost for good, remove "+d.DataDir+"/pool.id",
			"the file is missing that pool %s was in", p.ID)
	}
	if p.Another {
		d.wrong(object, "move the other one back", "what is attached is another file than this one")
	}
	if p.Open && p.ID != "" && p.UUID != p.ID && !p.InDisk {
		d.wrong(object, "put the right file in its place", "it is pool %s, here belongs %s", p.UUID, p.ID)
	}

	d.openPool(object)
	if len(d.found) > before {
		return
	}
	switch {
	case p.Open && p.InDisk:
		d.ok(object, "a directory of a btrfs disk, %s, %d subvolumes", p.Quota, len(p.Volumes))
	case p.Open:
		d.ok(object, "%s, %d subvolumes, %s of which %s can be written before it grows", p.Quota,
			len(p.Volumes), units.Bytes(p.Room.Device), units.Bytes(p.Room.Free()))
	default:
		d.ok(object, "there is none")
	}
}

func (d *diagnosis) openPool(object string) {
	p := d.Pool
	switch {
	case p.Open:
	case d.Driver.Runs && p.Is != nil:
		d.wrong(object, "look at the driver's log, or go to its mount namespace", "it is not mounted on %s",
			p.Root)
		return
	default:
		if p.Is != nil || p.InDisk && p.ID != "" {
			d.note(object, "start the driver", "it is not mounted, and what is in it was not looked at")
		}
		return
	}

	if p.ReadOnly {
		d.wrong(object, "make room on the disk below or mend it, and end the pods of this node that use it",
			"the kernel has made it read-only")
	}
	for _, kind := range slices.Sorted(maps.Keys(p.Errors)) {
		d.wrong(object, "save the data, and look at the disk below; btrfs device stats -z "+p.Root+
			" begins to count again", "%d %s", p.Errors[kind], strings.ReplaceAll(kind, "_errs", " errors"))
	}
	if p.Quota == "" {
		d.wrong(object, "restart the driver", "quotas are off: sizes do not hold")
	}
	if p.Quota == btrfs.Qgroups && d.Kernel.SimpleQuota {
		d.note(object, "", "it was made with qgroups, which simple quotas do not replace")
	}

	const noise = 1 << 20
	if p.Is != nil && p.Is.Size-p.Is.Allocated > noise {
		d.wrong(object, "make room on the disk: the driver gives it its blocks then",
			"%s of its file have no blocks: a full disk makes it read-only",
			units.Bytes(p.Is.Size-p.Is.Allocated))
	}
}
