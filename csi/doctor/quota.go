package doctor

import (
	"path/filepath"
	"time"

	"github.com/trivet-node/trivet/csi/quotadir"
	"github.com/trivet-node/trivet/csi/survey"
	"github.com/trivet-node/trivet/csi/volume"
	"github.com/trivet-node/trivet/internal/units"
)

// directories are what is found about volumes with project quotas.
type directories struct{ *diagnosis }

// quotas says whether the disk has project quotas. A node that has no volumes with them needs none.
func (d directories) quotas() {
	object := "project quotas of " + d.DataDir
	q := d.Quota
	why, do := q.Disk.Lack()
	switch {
	case why == "":
		d.ok(object, "%s, %d volumes, %d are being deleted",
			q.Disk.FileSystem, len(q.Volumes), len(q.Deleting))
	case len(q.Volumes) > 0:
		d.wrong(object, do, "the sizes of %d volumes do not hold: %s", len(q.Volumes), why)
	default:
		d.add(OK, object, do, "backend %s does not work: %s", []any{quotadir.Name, why})
	}

	for _, left := range q.Deleting {
		d.deleting(left)
	}
	for _, path := range q.Unknown {
		d.note("file "+path, "move it elsewhere if it is not needed here", "it is of no volume")
	}
}

// slow is how long the deletion of a volume may show nothing before it counts as stuck.
const slow = 10 * time.Minute

// deleting says what is left of a deleted volume.
func (d directories) deleting(left survey.Deleting) {
	object := "deleted volume " + left.ID
	switch {
	case left.Age < slow:
	case left.Empty && left.Files > 1:
		d.wrong(object, "end pods that had it, and look for files that others have put into its project",
			"%d files are charged to it that are elsewhere on the disk, or open", left.Files-1)
	default:
		d.wrong(object, "look at the driver's log, unless it has very many files",
			"its deletion has shown nothing for %s, and %d files are left",
			left.Age.Round(time.Minute), left.Files)
	}
}

// volume compares a record with the directory.
func (d directories) volume(r volume.Recorded) {
	v, there := d.Quota.Volumes[r.ID]
	switch {
	case d.Quota.Volumes == nil:
	case !there:
		d.wrong(objectOf(r), restore, "its directory is not in %s", d.Quota.Root)
	case v.Err != nil:
		d.wrong(objectOf(r), "look at the kernel's log", "%v", v.Err)
	case d.isShared(r.ID):
		d.wrong(objectOf(r), "move away what was copied into "+d.Quota.Root+", and restart the driver",
			"its directory says project %d, and so does another one's", v.Project)
	case !d.Quota.Disk.Holds:
		// That is said of the disk.
	case v.Limit == 0:
		d.wrong(objectOf(r), restart, "its directory has no limit: its size does not hold")
	case v.Limit < r.Size:
		d.wrong(objectOf(r), restart, "its limit is %s, its size %s",
			units.Bytes(v.Limit), units.Bytes(r.Size))
	case v.Used > r.Size+tolerance:
		d.wrong(objectOf(r), "end the pods that use it, and look at what they do",
			"it takes %s, its size is %s: a pod has taken files out of its project, or has CAP_SYS_RESOURCE",
			units.Bytes(v.Used), units.Bytes(r.Size))
	}
}

// isShared reports whether another volume has the same project.
func (d directories) isShared(id string) bool {
	v := d.Quota.Volumes[id]
	for other, o := range d.Quota.Volumes {
		if other != id && o.Project == v.Project && v.Project != 0 {
			return true
		}
	}
	return false
}

// tolerance is how much more than its size a volume may take for a moment.
const tolerance = 1 << 20

// unrecorded says which directories no record leads to.
func (d directories) unrecorded(do string) {
	for _, id := range sorted(d.Quota.Volumes) {
		if r, known := d.Records[id]; !known || r.Err == nil && r.Backend != quotadir.Name {
			d.wrong("directory of volume "+id+" in "+filepath.Clean(d.Quota.Root), do+id,
				"it has no record, and %s in it", units.Bytes(d.Quota.Volumes[id].Used))
		}
	}
}
