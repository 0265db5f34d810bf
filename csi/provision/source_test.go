package provision

import (
	"errors"
	"log/slog"
	"strings"
	"testing"

	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/trivet-node/trivet/csi/csitest"
)

// from returns a claim for a node that wants the content of something.
func from(group, kind, name string) *corev1.PersistentVolumeClaim {
	claim := waiting(csitest.Waiting, csitest.Node)
	claim.Spec.DataSourceRef = &corev1.TypedObjectReference{Kind: kind, Name: name}
	if group != "" {
		claim.Spec.DataSourceRef.APIGroup = &group
	}
	return claim
}

// putSource has a bound claim, with a volume on a node.
func (c *cluster) putSource(node string) {
	c.T.Helper()
	source := csitest.NewClaim("1Gi", csitest.Waiting)
	source.Name, source.UID = "source", "uid-source"
	source.Spec.VolumeName = "pvc-source"
	source.Status.Phase = corev1.ClaimBound
	c.Put(source)

	local := csitest.Here
	local.Node = node
	c.Put(&corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: "pvc-source"},
		Spec: corev1.PersistentVolumeSpec{
			ClaimRef:     &corev1.ObjectReference{UID: "uid-source"},
			NodeAffinity: local.Affinity(),
			PersistentVolumeSource: corev1.PersistentVolumeSource{
				CSI: &corev1.CSIPersistentVolumeSource{Driver: local.Driver, VolumeHandle: "vol-source"},
			},
		},
	})
}

// putSnapshot has a snapshot on a node that is ready or not.
func (c *cluster) putSnapshot(node string, ready bool) {
	c.T.Helper()
	c.putBoundSnapshot(ready, contentOn(node))
}

// putSnapshotOf has a snapshot here, of a volume with that mode if it is not "".
func (c *cluster) putSnapshotOf(mode corev1.PersistentVolumeMode, allowed string) {
	c.T.Helper()
	content := contentOn(csitest.Node)
	content.Annotations[allowModeChange] = allowed
	if mode != "" {
		content.Spec.SourceVolumeMode = &mode
	}
	c.putBoundSnapshot(true, content)
}

func (c *cluster) putBoundSnapshot(ready bool, content *snapshotv1.VolumeSnapshotContent) {
	c.T.Helper()
	c.Put(&snapshotv1.VolumeSnapshot{
		ObjectMeta: metav1.ObjectMeta{Namespace: csitest.Namespace, Name: "snap", UID: "uid-snap"},
		Status: &snapshotv1.VolumeSnapshotStatus{
			BoundVolumeSnapshotContentName: new("content"),
			ReadyToUse:                     &ready,
		},
	})
	c.Put(content)
}

func contentOn(node string) *snapshotv1.VolumeSnapshotContent {
	return &snapshotv1.VolumeSnapshotContent{
		ObjectMeta: metav1.ObjectMeta{
			Name:        "content",
			Annotations: map[string]string{csitest.Here.TopologyKey: node},
		},
		Spec: snapshotv1.VolumeSnapshotContentSpec{
			Driver:            csitest.Here.Driver,
			VolumeSnapshotRef: corev1.ObjectReference{UID: "uid-snap"},
		},
		Status: &snapshotv1.VolumeSnapshotContentStatus{SnapshotHandle: new("snap-1")},
	}
}

func TestVolumeBeginsWithTheContentOfItsSource(t *testing.T) {
	for _, want := range []string{"vol-source", "snap-1"} {
		t.Run(want, func(t *testing.T) {
			claim := from("", "PersistentVolumeClaim", "source")
			if want == "snap-1" {
				claim = from(snapshotv1.GroupName, "VolumeSnapshot", "snap")
			}

			c := newCluster(t, claim)
			c.putSource(csitest.Node)
			c.putSnapshot(csitest.Node, true)
			defer c.run()()
			c.Eventually("the volume object", c.isCreated)
			if got := c.CSI.Source(csitest.Volume); got != want {
				t.Errorf("it has the content of %q, want %q", got, want)
			}
		})
	}
}

// A claim whose content is on another node is for the driver there.
func TestSourceOnAnotherNode(t *testing.T) {
	for _, claim := range []*corev1.PersistentVolumeClaim{
		from("", "PersistentVolumeClaim", "source"),
		from(snapshotv1.GroupName, "VolumeSnapshot", "snap"),
	} {
		c := newCluster(t, claim)
		c.putSource("b")
		c.putSnapshot("b", true)
		stop := c.run()
		c.Eventually("the event", func() bool { return c.HasEvent("ProvisioningFailed") })
		if c.volumes() != 0 {
			t.Error("a volume was made")
		}
		if got := c.selected(csitest.Claim); got != csitest.Node {
			t.Errorf("selected node %q, want the one that the scheduler selected", got)
		}
		stop()
	}
}

// newClusterOfTwo has a claim for node b, and what it begins with on this one.
func newClusterOfTwo(t *testing.T, claim *corev1.PersistentVolumeClaim) *cluster {
	claim.Annotations[annSelectedNode] = "b"
	c := newCluster(t, claim)
	c.Put(&storagev1.CSINode{
		ObjectMeta: metav1.ObjectMeta{Name: "b"},
		Spec: storagev1.CSINodeSpec{
			Drivers: []storagev1.CSINodeDriver{{Name: csitest.Here.Driver}},
		},
	})
	c.putSource(csitest.Node)
	c.putSnapshot(csitest.Node, true)
	return c
}

// The scheduler does not know where contents are, so that it would select the wrong node each time.
func TestClaimComesToTheNodeOfItsSource(t *testing.T) {
	for _, claim := range []*corev1.PersistentVolumeClaim{
		from("", "PersistentVolumeClaim", "source"),
		from(snapshotv1.GroupName, "VolumeSnapshot", "snap"),
	} {
		c := newClusterOfTwo(t, claim)
		stop := c.run()
		c.Eventually("this node is selected", func() bool {
			return c.selected(csitest.Claim) == csitest.Node
		})
		c.Eventually("the volume object", c.isCreated)
		stop()
	}
}

// logged has the lines that were logged. Those of debugging are not among them.
type logged chan string

func (l logged) Write(line []byte) (int, error) {
	l <- string(line)
	return len(line), nil
}

// has reports whether a text is in the lines since it was called last.
func (l logged) has(text string) bool {
	for {
		select {
		case line := <-l:
			if strings.Contains(line, text) {
				return true
			}
		default:
			return false
		}
	}
}

// No other node says why a claim does not come to this one.
func TestSourceThatCannotBeReadIsLogged(t *testing.T) {
	for resource, test := range map[string]struct {
		claim *corev1.PersistentVolumeClaim
		want  string
	}{
		"persistentvolumes": {
			from("", "PersistentVolumeClaim", "source"),
			"the volume of the source, claim source cannot be read: ",
		},
		"volumesnapshots": {
			from(snapshotv1.GroupName, "VolumeSnapshot", "snap"),
			"the source, snapshot snap cannot be read: ",
		},
		"volumesnapshotcontents": {
			from(snapshotv1.GroupName, "VolumeSnapshot", "snap"),
			"the content of the source, snapshot snap cannot be read: ",
		},
	} {
		c := newClusterOfTwo(t, test.claim)
		lines := make(logged, 1000)
		c.Log = slog.New(slog.NewTextHandler(lines, nil))
		c.FailOn("get "+resource, 1, apierrors.NewInternalError(errors.New("no leader")))
		stop := c.run()

		c.Eventually("the line", func() bool { return lines.has(test.want) })
		c.Eventually("this node is selected", func() bool {
			return c.selected(csitest.Claim) == csitest.Node
		})
		stop()
	}
}

// An object that names another one is not enough (CVE-2019-11255): that has to name it, too, or everybody
// could have a copy of everybody's volume.
func TestContentOfSomebodyElseIsNotCopied(t *testing.T) {
	content := contentOn(csitest.Node)
	content.Spec.VolumeSnapshotRef.UID = "uid-of-another-snapshot"
	claims := csitest.NewClaim("1Gi", csitest.Waiting)
	claims.Name, claims.UID, claims.Spec.VolumeName = "thief", "uid-thief", "pvc-source"
	claims.Status.Phase = corev1.ClaimBound
	for _, claim := range []*corev1.PersistentVolumeClaim{
		from(snapshotv1.GroupName, "VolumeSnapshot", "snap"),
		from("", "PersistentVolumeClaim", "thief"),
	} {
		c := newCluster(t, claim)
		c.putSource(csitest.Node)
		c.Put(claims)
		c.putBoundSnapshot(true, content)
		stop := c.run()
		c.Eventually("the event", func() bool { return c.HasEvent("ProvisioningFailed") })
		if c.volumes() != 0 {
			t.Errorf("a volume was made with the content of %s", claim.Spec.DataSourceRef.Name)
		}
		stop()
	}
}

func TestSourceThatIsNotReadyIsWaitedFor(t *testing.T) {
	c := newCluster(t, from(snapshotv1.GroupName, "VolumeSnapshot", "snap"))
	c.putSnapshot(csitest.Node, false)
	defer c.run()()
	c.Eventually("the event", func() bool { return c.HasEvent("ProvisioningFailed") })
	if c.volumes() != 0 {
		t.Error("a volume was made")
	}
	c.putSnapshot(csitest.Node, true)
	c.Eventually("the volume object", c.isCreated)
}

// A call that may have made the volume is repeated as it was, although the source is gone.
func TestSourceIsThatOfTheFirstCall(t *testing.T) {
	c := newCluster(t, from(snapshotv1.GroupName, "VolumeSnapshot", "snap"))
	c.putSnapshot(csitest.Node, true)
	c.CSI.FailOn("CreateVolume after", status.Error(codes.Unavailable, "lost"))
	stop := c.run()
	c.Eventually("the call", func() bool { return c.volumes() == 1 })
	stop()

	c.Remove("volumesnapshots", csitest.Namespace, "snap")
	c.CSI.FailOn("CreateVolume after", nil)
	defer c.run()()
	c.Eventually("the volume object", c.isCreated)
	if got := c.CSI.Source(csitest.Volume); got != "snap-1" {
		t.Errorf("it has the content of %q", got)
	}
}

// A snapshot of a file system becomes a raw block volume where an administrator says so, a clone never.
func TestVolumeModeOfASourceIsKept(t *testing.T) {
	const files, blocks = corev1.PersistentVolumeFilesystem, corev1.PersistentVolumeBlock
	for _, c := range []struct {
		name      string
		kind      string
		had, want corev1.PersistentVolumeMode
		allowed   string
		made      bool
	}{
		{"a snapshot", "VolumeSnapshot", files, blocks, "", false},
		{"a snapshot that is not allowed to", "VolumeSnapshot", files, blocks, "false", false},
		{"a snapshot that is", "VolumeSnapshot", files, blocks, "true", true},
		{"the same mode", "VolumeSnapshot", blocks, blocks, "", true},
		{"a snapshot of which nothing is known", "VolumeSnapshot", "", blocks, "", true},
		{"a clone", "PersistentVolumeClaim", files, blocks, "", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			claim := from(snapshotv1.GroupName, c.kind, "snap")
			if c.kind == "PersistentVolumeClaim" {
				claim = from("", c.kind, "source")
			}
			claim.Spec.VolumeMode = &c.want

			cluster := newCluster(t, claim)
			cluster.putSource(csitest.Node)
			cluster.putSnapshotOf(c.had, c.allowed)
			defer cluster.run()()
			if c.made {
				cluster.Eventually("the volume object", cluster.isCreated)
				return
			}
			cluster.Eventually("the event", func() bool { return cluster.HasEvent("ProvisioningFailed") })
			if cluster.volumes() != 0 {
				t.Error("a volume was made")
			}
		})
	}
}
