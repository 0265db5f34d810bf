package doctor

import (
	"errors"
	"strings"
	"testing"
	"time"

	groupv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumegroupsnapshot/v1"
	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/trivet-node/trivet/csi/btrfs"
	"github.com/trivet-node/trivet/csi/datadir"
	"github.com/trivet-node/trivet/csi/driver"
	"github.com/trivet-node/trivet/csi/group"
	"github.com/trivet-node/trivet/csi/objects"
	"github.com/trivet-node/trivet/csi/publish"
	"github.com/trivet-node/trivet/csi/survey"
	"github.com/trivet-node/trivet/csi/volume"
	"github.com/trivet-node/trivet/internal/durable"
)

const gib = 1 << 30

var now = time.Unix(1700000000, 0)

// healthy are facts of a node on which nothing is wrong: a volume in use, and its snapshot.
func healthy() Facts {
	local := objects.Local{Driver: driver.Name, TopologyKey: driver.TopologyKey, Node: "node-a"}
	v := volume.Recorded{
		Spec: volume.Spec{
			ID:      "pvc-1",
			Name:    "pvc-1",
			Size:    gib,
			Backend: "btrfs",
			Access:  volume.Filesystem,
			FSType:  "btrfs",
		},
		Phase:   "ready",
		Created: now.Add(-time.Hour),
	}
	s := v
	s.ID, s.Source, s.Snapshot = "snapshot-1", "pvc-1", true

	return Facts{
		Survey: survey.Survey{
			At:      now,
			DataDir: "/data",
			Records: map[string]volume.Recorded{v.ID: v, s.ID: s},
			Staged:  map[string]publish.Staged{v.ID: {Path: "/stage", Targets: []string{"/target"}}},
			Pool: survey.Pool{
				Root:    "/data/pool",
				Path:    "/data/pool.img",
				ID:      "uuid",
				UUID:    "uuid",
				Is:      &survey.File{Size: 2 * gib, Allocated: 2 * gib},
				Open:    true,
				Quota:   btrfs.SimpleQuota,
				Room:    btrfs.Room{Device: 2 * gib, Unallocated: gib},
				Volumes: map[string]survey.Subvolume{v.ID: {Limit: gib + gib/128}, s.ID: {Limit: -1}},
			},
			Devices: []survey.Device{{Path: "/dev/loop1", Thing: "pool"}},
			Mounts:  []survey.Mount{{ID: v.ID, Point: "/stage"}, {ID: v.ID, Point: "/target"}},
			Disk:    survey.Disk{Size: 100 * gib, Free: 50 * gib},
			Kernel: survey.Kernel{
				Release:     "6.18",
				Btrfs:       true,
				SimpleQuota: true,
				Loop:        true,
				IOLimits:    "cgroup v2",
				Mkfs:        map[string]string{"btrfs": "/b", "ext4": "/e", "xfs": "/x"},
				SysAdmin:    true,
				SysResource: true,
			},
		},
		Driver:  Driver{Socket: "/csi.sock", Runs: true},
		Reserve: gib,
		API: &API{
			Local:     local,
			Volumes:   []*corev1.PersistentVolume{pvOf(local, v.ID)},
			Contents:  []*snapshotv1.VolumeSnapshotContent{contentOf(local, s.ID)},
			NodeThere: true,
		},
	}
}

func pvOf(local objects.Local, handle string) *corev1.PersistentVolume {
	return &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: "pv-of-" + handle},
		Spec: corev1.PersistentVolumeSpec{
			Capacity:     corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")},
			NodeAffinity: local.Affinity(),
			PersistentVolumeSource: corev1.PersistentVolumeSource{
				CSI: &corev1.CSIPersistentVolumeSource{Driver: local.Driver, VolumeHandle: handle},
			},
		},
	}
}

func contentOf(local objects.Local, handle string) *snapshotv1.VolumeSnapshotContent {
	return &snapshotv1.VolumeSnapshotContent{
		ObjectMeta: metav1.ObjectMeta{
			Name:        "content-of-" + handle,
			Annotations: map[string]string{local.TopologyKey: local.Node},
		},
		Spec:   snapshotv1.VolumeSnapshotContentSpec{Driver: local.Driver},
		Status: &snapshotv1.VolumeSnapshotContentStatus{SnapshotHandle: &handle},
	}
}

func groupOf(local objects.Local, handle string) *groupv1.VolumeGroupSnapshotContent {
	return &groupv1.VolumeGroupSnapshotContent{
		ObjectMeta: metav1.ObjectMeta{
			Name:        "content-of-" + handle,
			Annotations: map[string]string{local.TopologyKey: local.Node},
		},
		Spec:   groupv1.VolumeGroupSnapshotContentSpec{Driver: local.Driver},
		Status: &groupv1.VolumeGroupSnapshotContentStatus{VolumeGroupSnapshotHandle: &handle},
	}
}

func text(findings []Finding) string {
	var lines []string
	for _, f := range findings {
		lines = append(lines, f.String())
	}
	return strings.Join(lines, "\n")
}

func TestNothingIsWrongWithAHealthyNode(t *testing.T) {
	found := Findings(healthy())
	for _, f := range found {
		if f.Level != OK {
			t.Error(f)
		}
	}
	if len(found) != 9 {
		t.Errorf("%d findings:\n%s", len(found), text(found))
	}
}

// Who deletes the objects of volumes whose disk is not mounted deletes those, too.
func TestObjectsAreNotComparedWithAnotherDirectory(t *testing.T) {
	f := healthy()
	f.Place, f.Records, f.Groups = errEmpty, nil, nil
	for _, found := range Findings(f) {
		if strings.Contains(found.String(), "delete it") {
			t.Error(found)
		}
	}
}

var (
	errEmpty  = &datadir.Mismatch{What: "it is empty", Do: "mount it"}
	errSilent = errors.New("silent")
)

// wrongs are changes of a healthy node, and how the line begins that says so.
var wrongs = map[string]func(*Facts){
	"wrong  kernel 6.18: volumes cannot":        func(f *Facts) { f.Kernel.Mounts = errors.New("no") },
	"note   mkfs.xfs: it is missing":            func(f *Facts) { delete(f.Kernel.Mkfs, "xfs") },
	"note   kernel 6.18: no encrypted volumes":  func(f *Facts) { f.Kernel.Encryption = errors.New("no") },
	"wrong  driver: hangs":                      func(f *Facts) { f.Driver.Err = errors.New("hangs") },
	"note   driver: none answers":               func(f *Facts) { f.Driver.Runs = false },
	"note   driver: its own controllers are":    func(f *Facts) { f.Driver.CalledByOthers = "CreateVolume" },
	"wrong  disk of /data: less is free":        func(f *Facts) { f.Disk.Free = 1 },
	"wrong  disk of /data: it is empty; mount":  func(f *Facts) { f.Place = errEmpty },
	"wrong  disk of /data: 1Gi promised":        func(f *Facts) { f.PoolSize = 1 << 20 },
	"wrong  pool /data/pool.img: the file is":   func(f *Facts) { f.Pool.Is = nil },
	"wrong  pool /data/pool.img: 1Gi of":        func(f *Facts) { f.Pool.Is.Allocated = gib },
	"wrong  pool /data/pool.img: what is":       func(f *Facts) { f.Pool.Another = true },
	"wrong  pool /data/pool.img: it is pool x":  func(f *Facts) { f.Pool.UUID = "x" },
	"wrong  pool /data/pool.img: the kernel":    func(f *Facts) { f.Pool.ReadOnly = true },
	"wrong  pool /data/pool.img: it is not":     func(f *Facts) { f.Pool.Open = false },
	"wrong  pool /data/pool.img: quotas":        func(f *Facts) { f.Pool.Quota = "" },
	"wrong  volume pvc-1: its subvolume is not": func(f *Facts) { delete(f.Pool.Volumes, "pvc-1") },
	"wrong  volume pvc-1: it is not mounted":    func(f *Facts) { f.Mounts = f.Mounts[:1] },
	"wrong  quota group 29/300: its subvolume":  func(f *Facts) { f.Pool.Leftover = []string{"29/300"} },
	"wrong  CSINode node-a: it does not have":   func(f *Facts) { f.API.NodeThere = false },
	"wrong  volume pvc-1: no PersistentVolume":  func(f *Facts) { f.API.Volumes = nil },
	"wrong  snapshot snapshot-1: no Volume":     func(f *Facts) { f.API.Contents = nil },
	"wrong  API: it could not be asked: silent": func(f *Facts) { f.API, f.APIErr = nil, errSilent },

	"wrong  volume vol-2: it was part of a pod that has ended": func(f *Facts) {
		f.set("vol-2", "ready", func(r *volume.Recorded) { r.Name = "inline/csi-1" })
		f.Pool.Volumes["vol-2"] = survey.Subvolume{Limit: gib + gib/128}
	},
	"wrong  group snapshot group-1: no VolumeGroup": func(f *Facts) {
		f.Groups = map[string]group.Recorded{"group-1": {Snapshots: []string{"snapshot-1"}, Ready: true}}
	},
	"note   snapshot snapshot-1: no VolumeSnapshotContent has it; it belongs to group snapshot group-1": func(
		f *Facts,
	) {
		f.Groups = map[string]group.Recorded{"group-1": {Snapshots: []string{"snapshot-1"}, Ready: true}}
		f.API.Contents = nil
	},
	"wrong  VolumeGroupSnapshotContent content-of-group-9: its group snapshot": func(f *Facts) {
		f.API.Groups = append(f.API.Groups, groupOf(f.API.Local, "group-9"))
	},

	"wrong  volume pvc-1: its limits of input and output are not in force;": func(f *Facts) { f.limit(0) },
	"wrong  volume pvc-1: its limits of input and output are not in force for /kubepods and 1 more": func(
		f *Facts,
	) {
		f.limit(7)
		f.Limits.Differing = map[string][]string{"pvc-1": {"/kubepods", "/kubepods/pod1"}}
	},
	"wrong  volume pvc-1: its limits of input and output cannot be in force: no groups": func(f *Facts) {
		f.limit(7)
		f.Limits.Err = errors.New("no groups")
	},
	"wrong  volume pvc-1: limits of input and output that it does not have": func(f *Facts) {
		f.Limits.Differing = map[string][]string{"pvc-1": {"/kubepods"}}
	},

	"wrong  disk of /data: 1Gi promised to volumes, 0 there": func(f *Facts) {
		f.Disk.Free, f.Pool.Is.Allocated = 0, 0
	},
	"wrong  pool /data/pool.img: 3 write errors": func(f *Facts) {
		f.Pool.Errors = map[string]int64{"write_errs": 3}
	},
	"wrong  record x: torn": func(f *Facts) {
		f.Unreadable = []durable.Unreadable{{Name: "x", Err: errors.New("torn")}}
	},
	"wrong  volume pvc-2: it is making since": func(f *Facts) {
		f.set("pvc-2", "making", func(*volume.Recorded) {})
	},
	"wrong  volume pvc-1: its subvolume has no limit": func(f *Facts) {
		f.Pool.Volumes["pvc-1"] = survey.Subvolume{Limit: -1}
	},
	"wrong  volume pvc-2: its file is not in /data/images": func(f *Facts) {
		f.set("pvc-2", "ready", func(r *volume.Recorded) { r.Backend = "image" })
		f.Images = map[string]survey.File{}
	},
	"wrong  directory /data/images: it is not there, and has 1 volumes": func(f *Facts) {
		f.set("pvc-2", "ready", func(r *volume.Recorded) { r.Backend = "image" })
	},
	"wrong  key file /data/keys/image/pvc-3: there is no volume pvc-3": func(f *Facts) {
		f.Keys = []survey.Key{{Path: "/data/keys/image/pvc-3", Backend: "image", ID: "pvc-3"}}
	},
	"wrong  key file /data/keys/image/pvc-1: there is no": func(f *Facts) {
		f.Keys = []survey.Key{{Path: "/data/keys/image/pvc-1", Backend: "image", ID: "pvc-1"}}
	},
	"wrong  device /dev/loop2: it is attached to pvc-3, which has no record": func(f *Facts) {
		f.Devices = append(f.Devices, survey.Device{Path: "/dev/loop2", Thing: "pvc-3"})
	},
	"wrong  PersistentVolume pv-of-pvc-9: its volume pvc-9 is not": func(f *Facts) {
		f.API.Volumes = append(f.API.Volumes, pvOf(f.API.Local, "pvc-9"))
	},
	"wrong  VolumeSnapshotContent content-of-snapshot-9: its snapshot": func(f *Facts) {
		f.API.Contents = append(f.API.Contents, contentOf(f.API.Local, "snapshot-9"))
	},
}

func TestWhatIsWrongIsNamed(t *testing.T) {
	for want, change := range wrongs {
		f := healthy()
		change(&f)
		if found := text(Findings(f)); !strings.Contains("\n"+found, "\n"+want) {
			t.Errorf("nothing begins with %q in\n%s", want, found)
		}
	}
}

// limit gives the volume in use limits, which a device has, or none (0).
func (f *Facts) limit(device uint64) {
	r, st := f.Records["pvc-1"], f.Staged["pvc-1"]
	r.Limits, st.Limited = volume.Limits{ReadOps: 10}, device
	f.Records["pvc-1"], f.Staged["pvc-1"] = r, st
}

func TestLimitsInForceAreAsTheyShouldBe(t *testing.T) {
	f := healthy()
	f.limit(7)
	const want = "ok     limits: those of input and output of 1 volumes in use are in force"
	if found := text(Findings(f)); !strings.Contains(found, want) {
		t.Errorf("%q is not in\n%s", want, found)
	}
}

// set adds a record like that of the healthy volume.
func (f *Facts) set(id, phase string, change func(*volume.Recorded)) {
	r := f.Records["pvc-1"]
	r.ID, r.Name, r.Phase = id, id, phase
	change(&r)
	f.Records[id] = r
	f.Pool.Volumes[id] = f.Pool.Volumes["pvc-1"]
}

func TestWhatIsUnderWayIsNotWrong(t *testing.T) {
	underWay := map[string]func(*Facts){
		"a volume without its object yet": func(f *Facts) {
			f.set("pvc-2", "ready", func(r *volume.Recorded) { r.Created = now })
		},
		"a volume that is being made": func(f *Facts) {
			f.set("pvc-2", "making", func(r *volume.Recorded) { r.Created = now })
		},
		"an import": func(f *Facts) {
			f.set("pvc-2", "making", func(r *volume.Recorded) { r.Imported = "stream" })
		},
		"an export": func(f *Facts) {
			f.set("snap-2", "making", func(r *volume.Recorded) { r.Name, r.Snapshot = "lent/x", true })
			f.Mounts = append(f.Mounts, survey.Mount{ID: "snap-2", Point: "/lent"})
		},
		"an inline volume": func(f *Facts) {
			f.set("vol-2", "ready", func(r *volume.Recorded) { r.Name = "inline/csi-1" })
			f.Staged["vol-2"] = publish.Staged{Path: "/inline"}
			f.Mounts = append(f.Mounts, survey.Mount{ID: "vol-2", Point: "/inline"})
		},
		"a volume of another node": func(f *Facts) {
			other := f.API.Local
			other.Node = "node-b"
			f.API.Volumes = append(f.API.Volumes, pvOf(other, "pvc-7"))
		},
	}

	for name, change := range underWay {
		f := healthy()
		change(&f)
		if found := Findings(f); IsWrong(found) {
			t.Errorf("%s:\n%s", name, text(found))
		}
	}
}

func TestWhatAnObjectStandsForIsFound(t *testing.T) {
	api := healthy().API
	api.Groups = append(api.Groups, groupOf(api.Local, "group-1"))
	for id, want := range map[string]string{
		"pvc-1":      "PersistentVolume pv-of-pvc-1",
		"snapshot-1": "VolumeSnapshotContent content-of-snapshot-1",
		"pvc-2":      "",
		"group-1":    "VolumeGroupSnapshotContent content-of-group-1",
	} {
		if got := ObjectOf(api, id); got != want {
			t.Errorf("%s: %q, want %q", id, got, want)
		}
	}
}

func TestOnlyWhatLastsIsWrong(t *testing.T) {
	first := []Finding{{Level: Wrong, Object: "a", What: "1", Do: "x"}, {Level: Wrong, Object: "b"}}
	second := []Finding{{Level: Wrong, Object: "a", Do: "x"}, {Level: Wrong, Object: "c"}, {Level: OK}}
	lasting := Lasting(first, second)
	if len(lasting) != 2 || lasting[0] != second[0] || lasting[1] != second[2] {
		t.Errorf("%+v", lasting)
	}
}
