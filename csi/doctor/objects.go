package doctor

import (
	"errors"

	groupv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumegroupsnapshot/v1"
	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/trivet-node/trivet/csi/datadir"
	"github.com/trivet-node/trivet/csi/driver"
	"github.com/trivet-node/trivet/csi/objects"
	"github.com/trivet-node/trivet/internal/units"
)

// API is what the Kubernetes API has for the volumes of one node.
type API struct {
	Local    objects.Local
	Volumes  []*corev1.PersistentVolume          // of all drivers and nodes
	Contents []*snapshotv1.VolumeSnapshotContent // likewise; none if nobody has installed the kind
	Groups   []*groupv1.VolumeGroupSnapshotContent

	// NodeThere says that the node's CSINode has the driver.
	NodeThere bool
}

// objects compares records with the Kubernetes API.
func (d *diagnosis) objects() {
	if d.APIErr != nil {
		d.wrong("API", "what differs from its objects is not known: look again when it answers",
			"it could not be asked: %v", d.APIErr)
		return
	}
	if d.API == nil {
		d.note("API", "", "it was not asked: give --kubeconfig")
		return
	}

	if _, ok := errors.AsType[*datadir.Mismatch](d.Place); ok {
		d.note("API", "", "its objects are not compared: what they stand for is in another directory")
		return
	}

	before := len(d.found)
	if d.Driver.Runs && !d.API.NodeThere {
		d.wrong("CSINode "+d.API.Local.Node, "is kubelet running, and --registration-dir the one it watches?",
			"it does not have driver %s", d.API.Local.Driver)
	}

	volumes := d.persistentVolumes()
	groups := d.groups()
	snapshots := d.contents()
	if len(d.found) == before {
		d.ok("API", "%d PersistentVolumes, %d VolumeSnapshotContents and %d VolumeGroupSnapshotContents of"+
			" this node have what they stand for, and all volumes and snapshots have one",
			volumes, snapshots, groups)
	}
}

// persistentVolumes compares both ways, and returns how many are of this node.
func (d *diagnosis) persistentVolumes() (count int) {
	handles := map[string]bool{}
	for _, pv := range d.API.Volumes {
		if pv.Spec.CSI == nil || pv.Spec.CSI.Driver != d.API.Local.Driver {
			continue
		}

		handle := pv.Spec.CSI.VolumeHandle
		handles[handle] = true
		if !d.API.Local.Holds(pv) {
			continue
		}

		count++
		r, known := d.Records[handle]
		switch {
		case pv.DeletionTimestamp != nil:
		case !known || !r.IsReady() || r.Snapshot:
			d.wrong("PersistentVolume "+pv.Name, "restore its data from a backup, or delete it and its claim",
				"its volume %s is not on this node", handle)
		case pv.Spec.Capacity.Storage().Value() > r.Size:
			d.wrong("PersistentVolume "+pv.Name, "enlarge its claim", "it promises %s, volume %s has %s",
				units.Bytes(pv.Spec.Capacity.Storage().Value()), handle, units.Bytes(r.Size))
		}
	}

	for _, id := range sorted(d.Records) {
		r := d.Records[id]
		if r.Err != nil || !r.IsReady() || r.Snapshot || handles[id] || d.isYoung(r.Created) {
			continue
		}

		_, staged := d.Staged[id]
		if driver.IsInline(r.Name) {
			if !staged {
				d.wrong("volume "+id, "discard it: trivet-csi delete "+id,
					"it was part of a pod that has ended, and %s are promised to it", units.Bytes(r.Size))
			}
			continue
		}
		d.wrong("volume "+id, again+id+" | kubectl apply -f -, or discard it: trivet-csi delete "+id,
			"no PersistentVolume has it, and %s are promised to it", units.Bytes(r.Size))
	}

	return count
}

// again is how something without an object is used again, before its ID.
const again = "use it again: trivet-csi object "

// groups is persistentVolumes for group snapshots.
func (d *diagnosis) groups() (count int) {
	handles := map[string]bool{}
	for _, c := range d.API.Groups {
		handle := groupIn(c)
		if c.Spec.Driver != d.API.Local.Driver || handle == "" {
			continue
		}
		handles[handle] = true
		if c.Annotations[d.API.Local.TopologyKey] != d.API.Local.Node {
			continue
		}

		count++
		if r := d.Groups[handle]; c.DeletionTimestamp == nil && !r.Ready {
			d.wrong("VolumeGroupSnapshotContent "+c.Name, "delete it and its VolumeGroupSnapshot",
				"its group snapshot %s is not on this node", handle)
		}
	}

	d.groupOf = map[string]string{}
	for _, id := range sorted(d.Groups) {
		r := d.Groups[id]
		isYoung := false
		for _, snapshot := range r.Snapshots {
			d.groupOf[snapshot] = id
			isYoung = isYoung || d.isYoung(d.Records[snapshot].Created)
		}
		if r.Err == nil && r.Ready && !handles[id] && !isYoung {
			d.wrong("group snapshot "+id, "discard it: trivet-csi delete "+id,
				"no VolumeGroupSnapshotContent has it")
		}
	}

	return count
}

// contents is persistentVolumes for snapshots.
func (d *diagnosis) contents() (count int) {
	handles := map[string]bool{}
	for _, c := range d.API.Contents {
		if c.Spec.Driver != d.API.Local.Driver {
			continue
		}

		handle := handleIn(c)
		if handle == "" {
			continue
		}
		handles[handle] = true
		if c.Annotations[d.API.Local.TopologyKey] != d.API.Local.Node {
			continue
		}

		count++
		r, known := d.Records[handle]
		if c.DeletionTimestamp == nil && (!known || !r.IsReady() || !r.Snapshot) {
			d.wrong("VolumeSnapshotContent "+c.Name, "delete it and its VolumeSnapshot",
				"its snapshot %s is not on this node", handle)
		}
	}

	for _, id := range sorted(d.Records) {
		r := d.Records[id]
		if r.Err != nil || !r.IsReady() || !r.Snapshot || handles[id] || d.isYoung(r.Created) {
			continue
		}
		if group := d.groupOf[id]; group != "" {
			// It goes with its group, which may be all that is wanted of it.
			d.note("snapshot "+id, "",
				"no VolumeSnapshotContent has it; it belongs to group snapshot %s", group)
			continue
		}
		d.wrong("snapshot "+id, again+id+" | kubectl apply -f -, or discard it: trivet-csi delete "+id,
			"no VolumeSnapshotContent has it")
	}

	return count
}

// ObjectOf returns the object that stands for a volume or snapshot, on whatever node; "" if none does.
func ObjectOf(api *API, id string) string {
	for _, pv := range api.Volumes {
		if pv.Spec.CSI != nil && pv.Spec.CSI.Driver == api.Local.Driver && pv.Spec.CSI.VolumeHandle == id {
			return "PersistentVolume " + pv.Name
		}
	}
	for _, c := range api.Contents {
		if c.Spec.Driver == api.Local.Driver && handleIn(c) == id {
			return "VolumeSnapshotContent " + c.Name
		}
	}
	for _, c := range api.Groups {
		if c.Spec.Driver == api.Local.Driver && groupIn(c) == id {
			return "VolumeGroupSnapshotContent " + c.Name
		}
	}
	return ""
}

// groupIn returns the ID of the group snapshot of a content, "" while it is not known.
func groupIn(c *groupv1.VolumeGroupSnapshotContent) string {
	switch {
	case c.Status != nil && c.Status.VolumeGroupSnapshotHandle != nil:
		return *c.Status.VolumeGroupSnapshotHandle
	case c.Spec.Source.GroupSnapshotHandles != nil:
		return c.Spec.Source.GroupSnapshotHandles.VolumeGroupSnapshotHandle
	}
	return ""
}

// handleIn returns the ID of the snapshot of a content, "" while it is not known.
func handleIn(c *snapshotv1.VolumeSnapshotContent) string {
	switch {
	case c.Status != nil && c.Status.SnapshotHandle != nil:
		return *c.Status.SnapshotHandle
	case c.Spec.Source.SnapshotHandle != nil:
		return *c.Spec.Source.SnapshotHandle
	}
	return ""
}
