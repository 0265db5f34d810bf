// Package listing is what a person sees of the volumes of a node: a row for each volume and snapshot, and
// what holds them, as a table or as JSON. The names of JSON fields stay as they are; sizes there are bytes.
package listing

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/trivet-node/trivet/csi/btrfspool"
	"github.com/trivet-node/trivet/csi/quotadir"
	"github.com/trivet-node/trivet/csi/survey"
	"github.com/trivet-node/trivet/csi/volume"
	"github.com/trivet-node/trivet/internal/units"
)

// Name of an object in the Kubernetes API.
type Name struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
}

func (n *Name) String() string {
	if n == nil {
		return "-"
	}
	return n.Namespace + "/" + n.Name
}

// Volume is a row.
type Volume struct {
	ID       string `json:"id"`
	Size     int64  `json:"size"`
	Used     *int64 `json:"used"` // null: not known, as the pool is not mounted
	Promised int64  `json:"promised"`
	Backend  string `json:"backend"`
	Access   string `json:"access"`
	FSType   string `json:"fsType"`

	State    string    `json:"state"`
	Created  time.Time `json:"created"`
	Source   string    `json:"source,omitempty"`
	Imported string    `json:"imported,omitempty"`

	StagedOn         string   `json:"stagedOn,omitempty"`
	PublishedOn      []string `json:"publishedOn"`
	PersistentVolume string   `json:"persistentVolume,omitempty"`
	Claim            *Name    `json:"claim"`
}

// Volumes returns the volumes that are there or on their way, by their IDs.
func Volumes(s survey.Survey, pvs []*corev1.PersistentVolume) []Volume {
	byHandle := map[string]*corev1.PersistentVolume{}
	for _, pv := range pvs {
		if pv.Spec.CSI != nil {
			byHandle[pv.Spec.CSI.VolumeHandle] = pv
		}
	}

	volumes := []Volume{}
	for _, id := range slices.Sorted(maps.Keys(s.Records)) {
		r := s.Records[id]
		if r.Snapshot {
			continue
		}

		v := Volume{
			ID:       id,
			Size:     r.Size,
			Used:     usedBy(s, r),
			Promised: r.Need().Bytes,
			Backend:  r.Backend,
			Access:   string(r.Access),
			FSType:   r.FSType,
			State:    stateOf(r),
			Created:  r.Created,
			Source:   r.Source,
			Imported: r.Imported,

			StagedOn:    s.Staged[id].Path,
			PublishedOn: append([]string{}, s.Staged[id].Targets...),
		}
		if pv := byHandle[id]; pv != nil {
			v.PersistentVolume = pv.Name
			v.Claim = claimOf(pv)
		}
		volumes = append(volumes, v)
	}
	return volumes
}

func claimOf(pv *corev1.PersistentVolume) *Name {
	if pv.Spec.ClaimRef == nil {
		return nil
	}
	return &Name{Namespace: pv.Spec.ClaimRef.Namespace, Name: pv.Spec.ClaimRef.Name}
}

func stateOf(r volume.Recorded) string {
	switch {
	case r.Err != nil:
		return "damaged"
	case r.IsLent():
		return "lent"
	}
	return r.Phase
}

// usedBy returns what a volume is charged for, or what its image takes; nil if that is not known.
func usedBy(s survey.Survey, r volume.Recorded) *int64 {
	if r.Backend == quotadir.Name {
		v, there := s.Quota.Volumes[r.ID]
		used := min(v.Used, r.Size)
		if !there || v.Err != nil {
			return nil
		}
		return &used
	}
	if r.Backend != btrfspool.Name {
		file, there := s.Images[r.ID]
		if !there {
			return nil
		}
		return &file.Allocated
	}

	v, there := s.Pool.Volumes[r.ID]
	switch {
	case !there || v.Err != nil || r.Snapshot:
		return nil
	case v.Image != nil:
		return &v.Image.Allocated
	}
	used := min(v.Used, r.Size)
	return &used
}

// Snapshot is a row.
type Snapshot struct {
	ID       string    `json:"id"`
	Size     int64     `json:"size"`
	Promised int64     `json:"promised"` // bytes that it keeps of its volume
	Source   string    `json:"source"`
	Backend  string    `json:"backend"`
	State    string    `json:"state"`
	Created  time.Time `json:"created"`

	Content        string `json:"volumeSnapshotContent,omitempty"`
	VolumeSnapshot *Name  `json:"volumeSnapshot"`
}

// Snapshots returns the snapshots, by their IDs.
func Snapshots(s survey.Survey, contents []*snapshotv1.VolumeSnapshotContent) []Snapshot {
	byHandle := map[string]*snapshotv1.VolumeSnapshotContent{}
	for _, c := range contents {
		if c.Status != nil && c.Status.SnapshotHandle != nil {
			byHandle[*c.Status.SnapshotHandle] = c
		}
	}

	snapshots := []Snapshot{}
	for _, id := range slices.Sorted(maps.Keys(s.Records)) {
		r := s.Records[id]
		if !r.Snapshot {
			continue
		}

		row := Snapshot{
			ID:      id,
			Size:    r.Size,
			Source:  r.Source,
			Backend: r.Backend,
			State:   stateOf(r),
			Created: r.Created,
		}
		for _, bytes := range r.Keeps {
			row.Promised += bytes
		}
		if c := byHandle[id]; c != nil {
			row.Content = c.Name
			ref := c.Spec.VolumeSnapshotRef
			row.VolumeSnapshot = &Name{Namespace: ref.Namespace, Name: ref.Name}
		}
		snapshots = append(snapshots, row)
	}
	return snapshots
}

// JSON writes rows as an array.
func JSON(to io.Writer, rows any) error {
	e := json.NewEncoder(to)
	e.SetIndent("", "  ")
	return e.Encode(rows)
}

// VolumeTable writes volumes as a table.
func VolumeTable(to io.Writer, volumes []Volume) error {
	w := tabwriter.NewWriter(to, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "ID\tSIZE\tUSED\tPROMISED\tBACKEND\tFS\tSTATE\tCLAIM\tPUBLISHED ON")
	for _, v := range volumes {
		fs := v.FSType
		if v.Access == string(volume.Block) {
			fs = "(block)"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", v.ID, units.Bytes(v.Size), orDash(v.Used),
			units.Bytes(v.Promised), v.Backend, fs, v.State, v.Claim, list(v.PublishedOn))
	}
	return w.Flush()
}

// SnapshotTable writes snapshots as a table.
func SnapshotTable(to io.Writer, snapshots []Snapshot) error {
	w := tabwriter.NewWriter(to, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "ID\tSIZE\tPROMISED\tSOURCE\tBACKEND\tSTATE\tCREATED\tVOLUMESNAPSHOT")
	for _, s := range snapshots {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", s.ID, units.Bytes(s.Size), units.Bytes(s.Promised),
			s.Source, s.Backend, s.State, s.Created.Format(time.RFC3339), s.VolumeSnapshot)
	}
	return w.Flush()
}

func orDash(bytes *int64) string {
	if bytes == nil {
		return "-"
	}
	return units.Bytes(*bytes)
}

func list(paths []string) string {
	if len(paths) == 0 {
		return "-"
	}
	return strings.Join(paths, ",")
}
