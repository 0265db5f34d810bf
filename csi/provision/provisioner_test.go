package provision

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/trivet-node/trivet/csi/csitest"
	"github.com/trivet-node/trivet/csi/objects"
	"github.com/trivet-node/trivet/internal/kube/event"
)

type document = map[string]any

// cluster is a csitest.Cluster with a directory for the provisioner's records.
type cluster struct {
	*csitest.Cluster
	dir string
}

func newCluster(t *testing.T, claims ...*corev1.PersistentVolumeClaim) *cluster {
	t.Helper()
	return &cluster{csitest.NewCluster(t, claims...), t.TempDir()}
}

func (c *cluster) config(watched *objects.Watched, events *event.Recorder) Config {
	return Config{
		Dir:     c.dir,
		Local:   csitest.Here,
		Objects: watched,
		Client:  c.Client,
		CSI:     c.CSI,
		Events:  events,
		Log:     c.Log,
	}
}

// run runs a provisioner; the returned function ends it.
func (c *cluster) run() (stop func()) {
	c.T.Helper()
	return c.Run(func(watched *objects.Watched, events *event.Recorder) []func(context.Context) {
		p, err := New(c.config(watched, events))
		if err != nil {
			c.T.Fatal(err)
		}
		return []func(context.Context){p.Run}
	})
}

// selected returns the node that a claim is for.
func (c *cluster) selected(claim string) string {
	return c.ClaimNamed(claim).Annotations[annSelectedNode]
}

// isCreated reports whether the PersistentVolume of the claim exists.
func (c *cluster) isCreated() bool { return c.VolumeNamed(csitest.Volume) != nil }

func (c *cluster) volumes() int { return len(c.CSI.Volumes()) }

// waiting returns a claim that waits for its volume on a node ("": on none yet).
func waiting(class, node string) *corev1.PersistentVolumeClaim {
	claim := csitest.NewClaim("1Gi", class)
	if node != "" {
		claim.Annotations[annSelectedNode] = node
	}
	return claim
}

func TestClaimGetsItsVolumeAndGivesItBack(t *testing.T) {
	for _, claim := range []*corev1.PersistentVolumeClaim{
		waiting(csitest.Waiting, csitest.Node),
		waiting(csitest.Immediate, ""),
	} {
		t.Run(*claim.Spec.StorageClassName, func(t *testing.T) {
			c := newCluster(t, claim)
			defer c.run()()

			c.Eventually("the volume object", c.isCreated)
			pv := c.VolumeNamed(csitest.Volume)
			if pv.Spec.ClaimRef.UID != claim.UID || !csitest.Here.Holds(pv) || !hasFinalizer(pv) ||
				pv.Spec.Capacity.Storage().Value() != 1<<30 {
				t.Errorf("volume object %+v", pv)
			}

			c.Eventually("the event", func() bool { return c.HasEvent("ProvisioningSucceeded") })
			c.ChangeVolume(csitest.Volume, document{"status": document{"phase": "Released"}})
			c.Eventually("content and object are gone",
				func() bool { return !c.isCreated() && c.volumes() == 0 })
		})
	}
}

func TestVolumeIsMadeWithTheAttributesOfTheClaimsClass(t *testing.T) {
	claim := waiting(csitest.Waiting, csitest.Node)
	claim.Spec.VolumeAttributesClassName = new("gold")
	c := newCluster(t, claim)
	defer c.run()()
	c.Eventually("the claim is told that its class is missing", func() bool {
		return c.HasEvent("ProvisioningFailed")
	})
	if c.volumes() > 0 {
		t.Error("a volume was made without its attributes")
	}

	c.Put(csitest.NewAttributes("gold", "readOperationsPerSecond", "100"))
	c.Eventually("the volume", c.isCreated)
	if got := c.CSI.Mutable(csitest.Volume)["readOperationsPerSecond"]; got != "100" {
		t.Errorf("the driver was given %q", got)
	}
	if got := c.VolumeNamed(csitest.Volume).Spec.VolumeAttributesClassName; got == nil || *got != "gold" {
		t.Errorf("the volume object has class %v", got)
	}
}

func TestVolumeNamesTheSecretThatItsClassNames(t *testing.T) {
	c := newCluster(t, waiting(csitest.Waiting, csitest.Node))
	c.ChangeClass(csitest.Waiting, document{"parameters": document{stageSecretName: "key-of-${pvc.name}"}})
	defer c.run()()
	c.Eventually("the claim is told what is missing", func() bool { return c.HasEvent("ProvisioningFailed") })
	if c.volumes() > 0 {
		t.Error("a volume was made that nobody can stage")
	}

	c.ChangeClass(csitest.Waiting, document{"parameters": document{stageSecretNamespace: "${pvc.namespace}"}})
	c.Eventually("the volume", c.isCreated)
	got := c.VolumeNamed(csitest.Volume).Spec.CSI.NodeStageSecretRef
	if got == nil || got.Name != "key-of-"+csitest.Claim || got.Namespace != csitest.Namespace {
		t.Errorf("the volume object names %+v", got)
	}
}

func TestClaimThatCanNeverBeServedIsToldWhy(t *testing.T) {
	claim := waiting(csitest.Waiting, csitest.Node)
	claim.Spec.AccessModes = []corev1.PersistentVolumeAccessMode{corev1.ReadWriteMany}
	c := newCluster(t, claim)
	defer c.run()()
	c.Eventually("the event", func() bool { return c.HasEvent("ProvisioningFailed") })
	if c.CSI.Calls("CreateVolume") != 0 {
		t.Error("the driver was asked for it")
	}
}

func TestFullNodeLeavesTheClaimToTheScheduler(t *testing.T) {
	c := newCluster(t, waiting(csitest.Waiting, csitest.Node))
	c.CSI.FailOn("CreateVolume", status.Error(codes.ResourceExhausted, "full"))
	defer c.run()()
	c.Eventually("selected-node is removed", func() bool { return c.selected(csitest.Claim) == "" })
	c.Eventually("the event", func() bool { return c.HasEvent("ProvisioningFailed") })
	if c.volumes() != 0 || c.isCreated() {
		t.Error("a volume was made")
	}
}

// The driver says that there is room, and then that there is none. Nobody else takes the claim, so that it
// would come back at once, each time.
func TestImmediateClaimWithoutRoomIsLeftAloneForAWhile(t *testing.T) {
	c := newCluster(t, waiting(csitest.Immediate, ""))
	c.CSI.FailOn("CreateVolume", status.Error(codes.ResourceExhausted, "full"))
	defer c.run()()

	c.Eventually("it is tried", func() bool {
		return c.CSI.Calls("CreateVolume") > 0 && c.selected(csitest.Claim) == ""
	})
	c.CSI.FailOn("CreateVolume", nil)
	c.ChangeClaim(csitest.Claim, document{"metadata": document{"labels": document{"a": "hint"}}})
	other := waiting(csitest.Immediate, "")
	other.Name, other.UID = "other", "uid-2"
	c.Put(other)
	c.Eventually("another claim comes and is served",
		func() bool { return c.VolumeNamed("pvc-uid-2") != nil })
	if n := c.CSI.Calls("CreateVolume " + csitest.Volume); n != 1 {
		t.Errorf("the driver was asked for the volume %d times", n)
	}
}

func TestImmediateClaimThatIsTooLargeIsNotTaken(t *testing.T) {
	claim := csitest.NewClaim("20Gi", csitest.Immediate)
	c := newCluster(t, claim)
	defer c.run()()
	c.Eventually("the event", func() bool { return c.HasEvent("ProvisioningFailed") })
	if c.selected(csitest.Claim) != "" || c.CSI.Calls("CreateVolume") != 0 {
		t.Errorf("taken for node %q", c.selected(csitest.Claim))
	}
}

func TestClaimOfAVanishedNodeIsLeftToTheScheduler(t *testing.T) {
	there := waiting(csitest.Waiting, "without-driver")
	there.Name, there.UID = "other", "uid-2"
	c := newCluster(t, waiting(csitest.Waiting, "gone"), there)
	c.Put(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "without-driver"}})
	defer c.run()()
	c.Eventually("selected-node is removed", func() bool { return c.selected(csitest.Claim) == "" })
	if c.selected("other") == "" {
		t.Error("a claim was taken from a node that exists")
	}
}

func TestClaimsAreLookedAtWhenTheDriverLeavesTheirNode(t *testing.T) {
	c := newCluster(t, waiting(csitest.Waiting, "b"))
	registered := &storagev1.CSINode{
		ObjectMeta: metav1.ObjectMeta{Name: "b"},
		Spec: storagev1.CSINodeSpec{
			Drivers: []storagev1.CSINodeDriver{{Name: csitest.Here.Driver, NodeID: "b"}},
		},
	}

	c.Put(registered)
	other := waiting(csitest.Waiting, csitest.Node)
	other.Name, other.UID = "other", "uid-2"
	c.Put(other)
	defer c.run()()

	c.Eventually("the provisioner works", func() bool { return c.VolumeNamed("pvc-uid-2") != nil })

	registered.Spec.Drivers = nil
	c.Put(registered)
	c.Eventually("selected-node is removed", func() bool { return c.selected(csitest.Claim) == "" })
}

// The driver made the volume, the answer got lost, and the claim was deleted meanwhile: only the intent says
// that there is a volume.
func TestVolumeOfAVanishedClaimIsDeleted(t *testing.T) {
	c := newCluster(t, waiting(csitest.Waiting, csitest.Node))
	c.CSI.FailOn("CreateVolume after", status.Error(codes.DeadlineExceeded, "too late"))
	stop := c.run()
	c.Eventually("the volume is made", func() bool { return c.volumes() == 1 })
	stop()
	c.CSI.FailOn("CreateVolume after", nil)
	c.Remove("persistentvolumeclaims", csitest.Namespace, csitest.Claim)
	defer c.run()()
	c.Eventually("the volume is deleted", func() bool { return c.volumes() == 0 })
	c.Eventually("the record is removed", func() bool { return len(c.records()) == 0 })
}

func (c *cluster) records() []string {
	records, err := filepath.Glob(filepath.Join(c.dir, "*.json"))
	if err != nil {
		c.T.Fatal(err)
	}
	return records
}

// As above, but the claim's class retains volumes: somebody may have put data into it meanwhile.
func TestVolumeOfAVanishedClaimIsRetained(t *testing.T) {
	c := newCluster(t, waiting(csitest.Waiting, csitest.Node))
	c.ChangeClass(csitest.Waiting, document{"reclaimPolicy": "Retain"})
	c.CSI.FailOn("CreateVolume after", status.Error(codes.DeadlineExceeded, "too late"))
	stop := c.run()
	c.Eventually("the volume is made", func() bool { return c.volumes() == 1 })
	stop()
	c.CSI.FailOn("CreateVolume after", nil)
	c.Remove("persistentvolumeclaims", csitest.Namespace, csitest.Claim)
	defer c.run()()

	c.Eventually("the record is removed", func() bool { return len(c.records()) == 0 })
	if c.volumes() != 1 {
		t.Error("the volume was deleted")
	}
}

func TestTornIntentIsSetAside(t *testing.T) {
	c := newCluster(t, waiting(csitest.Waiting, csitest.Node))
	if err := os.WriteFile(filepath.Join(c.dir, csitest.Volume+".json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	defer c.run()()
	c.Eventually("the volume object", c.isCreated)
	if aside, err := filepath.Glob(filepath.Join(c.dir, "quarantine", "*")); len(aside) != 1 {
		t.Errorf("set aside: %v, %v", aside, err)
	}
}

func TestLostAnswerIsAskedForAgain(t *testing.T) {
	c := newCluster(t, waiting(csitest.Waiting, csitest.Node))
	c.CSI.FailOn("CreateVolume after", status.Error(codes.Unavailable, "gone"))
	defer c.run()()
	c.Eventually("the volume is made", func() bool { return c.volumes() == 1 })
	c.CSI.FailOn("CreateVolume after", nil)
	c.Eventually("the volume object", c.isCreated)
	if c.volumes() != 1 {
		t.Errorf("%d volumes", c.volumes())
	}
}

func TestWhoMayWriteDoesWhateverTheOrderOfAccessModes(t *testing.T) {
	class := csitest.NewClass("fast", storagev1.VolumeBindingImmediate)
	claim := csitest.NewClaim("1Gi", "fast")
	claim.Spec.AccessModes = []corev1.PersistentVolumeAccessMode{corev1.ReadOnlyMany, corev1.ReadWriteOnce}
	pv := persistentVolume(facts{local: csitest.Here, claim: claim, class: class}, &csi.Volume{})

	want := []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce, corev1.ReadOnlyMany}
	if !slices.Equal(pv.Spec.AccessModes, want) || claim.Spec.AccessModes[0] != corev1.ReadOnlyMany {
		t.Errorf("volume %v of claim %v", pv.Spec.AccessModes, claim.Spec.AccessModes)
	}
}

func TestRequestOfAClaim(t *testing.T) {
	class := csitest.NewClass("fast", storagev1.VolumeBindingImmediate)
	class.Parameters = map[string]string{"backend": "image", objects.FSType: "xfs"}
	claim := csitest.NewClaim("1500M", "fast")
	claim.Spec.AccessModes = []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOncePod}
	req, err := createRequest(facts{local: csitest.Here, claim: claim, class: class})
	if err != nil {
		t.Fatal(err)
	}

	capability := req.GetVolumeCapabilities()[0]
	topology := req.GetAccessibilityRequirements().GetRequisite()[0].GetSegments()
	for what, ok := range map[string]bool{
		"name":        req.GetName() == csitest.Volume,
		"size":        req.GetCapacityRange().GetRequiredBytes() == 1_500_000_000,
		"file system": capability.GetMount().GetFsType() == "xfs",
		"access": capability.GetAccessMode().GetMode() ==
			csi.VolumeCapability_AccessMode_SINGLE_NODE_SINGLE_WRITER,
		"parameters of the driver": req.GetParameters()["backend"] == "image",
		"parameters of others":     req.GetParameters()[objects.FSType] == "",
		"claim":                    req.GetParameters()["csi.storage.k8s.io/pvc/name"] == csitest.Claim,
		"topology":                 topology[csitest.Here.TopologyKey] == csitest.Node,
	} {
		if !ok {
			t.Errorf("%s of request %v", what, req)
		}
	}

	claim.Spec.Resources.Requests = nil
	if req, err := createRequest(facts{local: csitest.Here, claim: claim, class: class}); err == nil {
		t.Errorf("a claim without a size became %v", req)
	}
}

func TestOnlyFinalErrorsEndAnIntent(t *testing.T) {
	for code, want := range map[codes.Code]bool{
		codes.InvalidArgument:   true,
		codes.ResourceExhausted: true,
		codes.Internal:          true,
		codes.DeadlineExceeded:  false,
		codes.Unavailable:       false,
		codes.Aborted:           false,
		codes.Canceled:          false,
		codes.Unknown:           false,
	} {
		if got := isFinal(status.Error(code, "x")); got != want {
			t.Errorf("%s: %t", code, got)
		}
	}

	if isFinal(fmt.Errorf("no status")) {
		t.Error("an error without a code is final")
	}
}
