package volume

import (
	"context"
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// claims is an API with one claim and one volume.
type claims struct {
	Objects
	claim v1.PersistentVolumeClaim
	pv    v1.PersistentVolume
}

func (c *claims) PersistentVolumeClaim(context.Context, string, string) (*v1.PersistentVolumeClaim, error) {
	return &c.claim, nil
}

func (c *claims) PersistentVolume(context.Context, string) (*v1.PersistentVolume, error) {
	return &c.pv, nil
}

// provider is a CSI driver that provides everything and keeps the request.
type provider struct{ request Request }

func (p *provider) Setup(_ context.Context, r Request) (Provided, error) {
	p.request = r
	return Provided{Path: "/provided", Revisit: true}, nil
}

func (p *provider) Teardown(context.Context, types.UID) error { return nil }

// boundClaim is a claim that is bound to a CSI volume, and a pod that mounts it.
func boundClaim() (*claims, *v1.Pod, *v1.Volume) {
	c := &claims{
		claim: v1.PersistentVolumeClaim{
			ObjectMeta: metav1.ObjectMeta{Name: "data", UID: "claim"},
			Spec:       v1.PersistentVolumeClaimSpec{VolumeName: "pv"},
			Status:     v1.PersistentVolumeClaimStatus{Phase: v1.ClaimBound},
		},
		pv: v1.PersistentVolume{
			ObjectMeta: metav1.ObjectMeta{Name: "pv"},
			Spec: v1.PersistentVolumeSpec{
				ClaimRef: &v1.ObjectReference{UID: "claim"},
				PersistentVolumeSource: v1.PersistentVolumeSource{
					CSI: &v1.CSIPersistentVolumeSource{Driver: "d"},
				},
			},
		},
	}

	pod := &v1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "p", UID: "pod"},
		Spec: v1.PodSpec{Containers: []v1.Container{{
			VolumeMounts: []v1.VolumeMount{{Name: "v"}},
		}}},
	}

	return c, pod, &v1.Volume{Name: "v"}
}

// refused are the ways to spoil a claim that can be used, by what the error says then.
var refused = map[string]func(c *claims, pod *v1.Pod, vol *v1.Volume){
	`claim "data" is not bound`: func(c *claims, _ *v1.Pod, _ *v1.Volume) {
		c.claim.Status.Phase = v1.ClaimPending
	},
	`claim "data" is being deleted`: func(c *claims, _ *v1.Pod, _ *v1.Volume) {
		c.claim.DeletionTimestamp = new(metav1.Now())
	},
	`claim "data" was not created for pod ns/p`: func(_ *claims, _ *v1.Pod, vol *v1.Volume) {
		vol.Ephemeral = &v1.EphemeralVolumeSource{}
	},
	`volume "pv" is not bound to persistentvolumeclaim "data"`: func(c *claims, _ *v1.Pod, _ *v1.Volume) {
		c.pv.Spec.ClaimRef.UID = "another"
	},
	"volumeMode Block, but is specified in volumeMounts": func(c *claims, _ *v1.Pod, _ *v1.Volume) {
		c.pv.Spec.VolumeMode = new(v1.PersistentVolumeBlock)
	},
	"volumeMode Filesystem, but is specified in volumeDevices": func(_ *claims, pod *v1.Pod, _ *v1.Volume) {
		pod.Spec.Containers[0].VolumeDevices = []v1.VolumeDevice{{Name: "v"}}
	},
	`"many" is not a group id`: func(c *claims, _ *v1.Pod, _ *v1.Volume) {
		c.pv.Annotations = map[string]string{gidAnnotation: "many"}
	},
	"its type is not supported": func(c *claims, _ *v1.Pod, _ *v1.Volume) {
		c.pv.Spec.PersistentVolumeSource = v1.PersistentVolumeSource{}
	},
}

func TestClaimsThatAPodMayNotUseAreRefused(t *testing.T) {
	for want, spoil := range refused {
		c, pod, vol := boundClaim()
		spoil(c, pod, vol)
		m := New(Config{Objects: c, CSI: &provider{}})

		_, err := m.claim(t.Context(), pod, vol, "data", false)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
	}
}

func TestClaimBringsGroupAndVisitsOfItsVolume(t *testing.T) {
	c, pod, vol := boundClaim()
	c.pv.Annotations = map[string]string{gidAnnotation: "77"}
	m := New(Config{Objects: c, CSI: &provider{}})
	mounted, err := m.claim(t.Context(), pod, vol, "data", false)
	if err != nil {
		t.Fatal(err)
	}
	if mounted.Path != "/provided" || !mounted.revisit || len(mounted.groups) != 1 ||
		mounted.groups[0] != 77 {
		t.Errorf("mounted %+v, want group 77 and another visit", mounted)
	}
}

func TestClaimIsReadOnlyIfAnythingSaysSo(t *testing.T) {
	reading := []v1.PersistentVolumeAccessMode{v1.ReadOnlyMany}
	for what, c := range map[string]struct {
		change   func(*claims)
		readOnly bool
		want     bool
	}{
		"nothing":                  {func(*claims) {}, false, false},
		"the pod":                  {func(*claims) {}, true, true},
		"the driver's source":      {func(c *claims) { c.pv.Spec.CSI.ReadOnly = true }, false, true},
		"the modes of one of both": {func(c *claims) { c.pv.Spec.AccessModes = reading }, false, false},
		"the modes of claim and pv": {
			func(c *claims) { c.pv.Spec.AccessModes, c.claim.Spec.AccessModes = reading, reading },
			false,
			true,
		},
	} {
		objects, pod, vol := boundClaim()
		c.change(objects)
		driver := &provider{}
		m := New(Config{Objects: objects, CSI: driver})

		if _, err := m.claim(t.Context(), pod, vol, "data", c.readOnly); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		if driver.request.ReadOnly != c.want {
			t.Errorf("%s: read-only is %t, want %t", what, driver.request.ReadOnly, c.want)
		}
	}
}

func TestVolumeIsSetUpAgainForVisits(t *testing.T) {
	m := New(Config{})
	visited := &Volumes{ByName: map[string]Mounted{"v": {revisit: true}}}
	if m.setUpAgain(&v1.Pod{}, visited).IsZero() {
		t.Error("a volume that wants another visit gets none")
	}
	if at := m.setUpAgain(&v1.Pod{}, &Volumes{}); !at.IsZero() {
		t.Errorf("a pod without such volumes is set up again at %v", at)
	}
}
