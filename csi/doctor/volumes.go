package doctor

import (
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"time"

	"github.com/trivet-node/trivet/csi/btrfspool"
	"github.com/trivet-node/trivet/csi/driver"
	"github.com/trivet-node/trivet/csi/loopfile"
	"github.com/trivet-node/trivet/csi/quotadir"
	"github.com/trivet-node/trivet/csi/survey"
	"github.com/trivet-node/trivet/csi/volume"
	"github.com/trivet-node/trivet/internal/units"
)

func sorted[T any](byID map[string]T) []string { return slices.Sorted(maps.Keys(byID)) }

// objectOf names a volume as people know it.
func objectOf(r volume.Recorded) string {
	if r.Snapshot {
		return "snapshot " + r.ID
	}
	return "volume " + r.ID
}

// isYoung reports whether something may still be under way.
func (d *diagnosis) isYoung(began time.Time) bool { return d.At.Sub(began) < grace }

// records says which cannot be read, and which are of something that was never finished.
func (d *diagnosis) records() {
	for _, u := range d.Unreadable {
		where := u.Moved
		if where == "" {
			where = "it is set aside when the driver starts"
		}
		d.wrong("record "+u.Name, "mend it, and move it back while no driver runs; or discard it:"+
			" trivet-csi delete "+u.Name, "%v (%s)", u.Err, where)
	}

	for _, id := range sorted(d.Records) {
		r := d.Records[id]
		switch {
		case r.Err != nil:
			d.wrong("volume "+id, "use the version of the driver that wrote it", "%v", r.Err)
		case r.IsReady():
		case r.IsLent() && d.Driver.Runs:
			since := r.Created.Format(time.DateTime)
			d.note(objectOf(r), "", "an export of %s reads it since %s", r.Source, since)
		case !d.Driver.Runs:
			d.note(objectOf(r), "start the driver, which removes it", "it was left unfinished (%s)", r.Phase)
		case r.Imported != "" && r.Phase == "making":
			d.note(objectOf(r), "", "it is being imported since %s", r.Created.Format(time.DateTime))
		case !d.isYoung(r.Created):
			d.wrong(objectOf(r), "look at the driver's log", "it is %s since %s",
				r.Phase, r.Created.Format(time.DateTime))
		}
	}
}

// volumes compares records with what holds the volumes.
func (d *diagnosis) volumes() {
	before, ready, snapshots := len(d.found), 0, 0
	d.directory(loopfile.Name, filepath.Join(d.DataDir, "images"), d.Images != nil)
	d.directory(quotadir.Name, d.Quota.Root, d.Quota.Volumes != nil)
	for _, id := range sorted(d.Records) {
		r := d.Records[id]
		if r.Err != nil || !r.IsReady() {
			continue
		}

		if r.Snapshot {
			snapshots++
		} else {
			ready++
		}
		switch r.Backend {
		case btrfspool.Name:
			d.inPool(r)
		case loopfile.Name:
			images{d}.volume(r)
		case quotadir.Name:
			directories{d}.volume(r)
		default:
			d.wrong(objectOf(r), "use the version of the driver that made it", "its backend is %q", r.Backend)
		}
	}

	d.unrecorded()
	if len(d.found) == before {
		d.ok("records", "%d volumes and %d snapshots are as their records say", ready, snapshots)
	}
}

const (
	restore = "restore it from a backup, or delete it"
	restart = "restart the driver"
)

// inPool compares a record with the subvolume.
func (d *diagnosis) inPool(r volume.Recorded) {
	if !d.Pool.Open || d.Pool.Volumes == nil {
		return
	}

	v, there := d.Pool.Volumes[r.ID]
	pooled := r.Access == volume.Block || r.FSType != "" && r.FSType != "btrfs"
	switch {
	case !there:
		d.wrong(objectOf(r), restore, "its subvolume is not in the pool")
	case v.Err != nil:
		d.wrong(objectOf(r), "look at the kernel's log", "%v", v.Err)
	case !r.Snapshot && v.Limit < 0:
		d.wrong(objectOf(r), restart, "its subvolume has no limit: its size does not hold")
	case !r.Snapshot && v.Limit < r.Size:
		d.wrong(objectOf(r), restart, "its limit is %s, its size %s",
			units.Bytes(v.Limit), units.Bytes(r.Size))
	case pooled && v.Image == nil:
		d.wrong(objectOf(r), restore, "its image is not in its subvolume")
	case pooled && !r.Snapshot && v.Image.Size < r.Size:
		d.wrong(objectOf(r), restart, "its image has %s, its size is %s",
			units.Bytes(v.Image.Size), units.Bytes(r.Size))
	}
}

// directory says that that of a backend's volumes is not there, if it has some.
func (d *diagnosis) directory(backend, path string, isThere bool) {
	count := 0
	for _, r := range d.Records {
		if r.Err == nil && r.Backend == backend {
			count++
		}
	}
	if !isThere && count > 0 {
		d.wrong("directory "+path, "mount its disk, or make an empty one if what was in it is lost for good",
			"it is not there, and has %d volumes", count)
	}
}

// images is what is wrong with volumes in files on the disk.
type images struct{ *diagnosis }

// volume compares a record with the file.
func (d images) volume(r volume.Recorded) {
	file, there := d.Images[r.ID]
	switch {
	case d.Images == nil:
	case !there:
		d.wrong(objectOf(r), restore, "its file is not in %s", filepath.Join(d.DataDir, "images"))
	case file.Size < r.Size:
		d.wrong(objectOf(r), restart, "its file has %s, its size is %s",
			units.Bytes(file.Size), units.Bytes(r.Size))
	}
}

// unrecorded says what holds data that no record leads to.
func (d *diagnosis) unrecorded() {
	const do = "mend its record if that was set aside, or discard the data: trivet-csi delete "
	for _, id := range sorted(d.Pool.Volumes) {
		if r, known := d.Records[id]; !known || r.Err == nil && r.Backend != btrfspool.Name {
			d.wrong("subvolume "+filepath.Join(d.Pool.Root, "volumes", id), do+id,
				"it has no record, and %s in it", units.Bytes(d.Pool.Volumes[id].Used))
		}
	}
	for _, id := range sorted(d.Images) {
		if r, known := d.Records[id]; !known || r.Err == nil && r.Backend != loopfile.Name {
			d.wrong("file "+filepath.Join(d.DataDir, "images", id+".img"), do+id,
				"it has no record, and %s on the disk", units.Bytes(d.Images[id].Allocated))
		}
	}
	directories{d}.unrecorded(do)

	// An earlier version of the driver has deleted the volume, and not the key file: with the Secret, the
	// blocks that were the volume's could be read.
	for _, key := range d.Keys {
		if d.Claims(key) {
			continue
		}
		do := "trivet-csi delete " + key.ID
		if _, known := d.Records[key.ID]; known {
			do = "shred -u " + key.Path
		}
		d.wrong("key file "+key.Path, "erase it, if the volume does not come back: "+do,
			"there is no volume %s in backend %s", key.ID, key.Backend)
	}
}

// use compares what is recorded as in use with mounts and devices.
func (d *diagnosis) use() {
	mounted := map[string]survey.Mount{}
	for _, m := range d.Mounts {
		mounted[m.Point] = m
	}

	before, targets := len(d.found), 0
	for _, id := range sorted(d.Staged) {
		st := d.Staged[id]
		targets += len(st.Targets)
		r, known := d.Records[id]
		if !known {
			d.wrong("volume "+id, "end the pods that use it", "it is staged on %s without a record", st.Path)
			continue
		}

		if r.Access == volume.Block {
			if !d.hasDevice(id) {
				d.wrong("volume "+id, "delete the pods that use it", "it is staged, and has no device")
			}
			continue
		}

		for _, point := range append([]string{st.Path}, st.Targets...) {
			if m, is := mounted[point]; !is || m.ID != id {
				d.wrong("volume "+id, "delete the pods that use it, or look in the driver's mount namespace",
					"it is not mounted on %s, where its record says it is", point)
			}
		}
	}

	if len(d.found) == before {
		d.ok("use", "%d volumes are staged, and published for pods on %d paths", len(d.Staged), targets)
	}
}

func (d *diagnosis) hasDevice(id string) bool {
	return slices.ContainsFunc(d.Devices, func(v survey.Device) bool { return v.Thing == id })
}

// leftBehind says which mounts, devices, quota groups and files nobody needs.
func (d *diagnosis) leftBehind() {
	before := len(d.found)
	for _, m := range d.Mounts {
		if why := d.unused(m.ID); why != "" {
			d.wrong("mount "+m.Point, "umount "+m.Point, "it shows volume %s, which %s", m.ID, why)
		}
	}

	for _, v := range d.Devices {
		why := ""
		switch {
		case v.Thing != "pool":
			why = d.unused(v.Thing)
		case !d.Pool.Open && !d.Driver.Runs:
			why = "is not mounted here"
		}
		if why != "" {
			d.wrong("device "+v.Path, "unmount it where it is mounted, or losetup -d "+v.Path,
				"it is attached to %s, which %s", v.Thing, why)
		}
	}

	for _, group := range d.Pool.Leftover {
		d.wrong("quota group "+group, fmt.Sprintf("btrfs qgroup destroy %s %s", group, d.Pool.Root),
			"its subvolume is gone")
	}
	for _, path := range d.Others {
		d.note("file "+path, "move it elsewhere if it is not needed here", "the driver knows nothing of it")
	}

	if len(d.found) == before {
		d.ok("leaks", "no mount, device, quota group or file was left behind")
	}
}

// unused says why a volume should be neither mounted nor attached; "" if it may be.
func (d *diagnosis) unused(id string) string {
	r, known := d.Records[id]
	_, staged := d.Staged[id]
	switch {
	case !known:
		return "has no record"
	case !r.IsReady() && d.Driver.Runs, staged:
		return ""
	case driver.IsInline(r.Name):
		return "was part of a pod that has ended"
	}
	return "is not staged"
}
