package growth

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/trivet-node/trivet/internal/kube"
	"github.com/trivet-node/trivet/internal/kube/kubetest"
)

// claimAt is a claim of an API server.
type claimAt struct {
	t      *testing.T
	server *kubetest.Server
}

func (c claimAt) read() *v1.PersistentVolumeClaim {
	return kubetest.Get[v1.PersistentVolumeClaim](c.server, "persistentvolumeclaims", "ns", "data")
}

func (c claimAt) shows(want v1.ClaimResourceStatus, conditions ...v1.PersistentVolumeClaimConditionType) {
	c.t.Helper()
	claim := c.read()
	var types []v1.PersistentVolumeClaimConditionType
	for _, condition := range claim.Status.Conditions {
		types = append(types, condition.Type)
	}
	if stage(claim) != want || !slices.Equal(types, conditions) {
		c.t.Errorf("the claim is %q with %v, want %q with %v", stage(claim), types, want, conditions)
	}
}

func TestAClaimShowsHowFarItHasGrown(t *testing.T) {
	server := kubetest.Start(t)
	claim := &v1.PersistentVolumeClaim{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "PersistentVolumeClaim"},
		ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "data", UID: "u"},
	}
	claim.Status.Conditions = []v1.PersistentVolumeClaimCondition{
		{Type: v1.PersistentVolumeClaimFileSystemResizePending, Status: v1.ConditionTrue},
		{Type: v1.PersistentVolumeClaimVolumeModifyVolumeError, Status: v1.ConditionTrue},
	}
	server.Put(claim)

	size := resource.MustParse("2Gi")
	claims := Status{Claims: kube.Claims(server.Client())}
	c := claimAt{t: t, server: server}
	const (
		pending = v1.PersistentVolumeClaimFileSystemResizePending
		foreign = v1.PersistentVolumeClaimVolumeModifyVolumeError
		failed  = v1.PersistentVolumeClaimNodeResizeError
	)

	before := c.read()
	begun, err := claims.Growing(t.Context(), before)
	if err != nil {
		t.Fatal(err)
	}
	c.shows(v1.PersistentVolumeClaimNodeResizeInProgress, pending, foreign)

	// An old claim is no base for a change.
	if err := claims.NotGrown(t.Context(), before, size, errors.New("no")); err == nil {
		t.Error("a claim that has changed since was overwritten")
	}

	busy := fmt.Errorf("expand: %w", status.Error(codes.Internal, "busy"))
	if err := claims.NotGrown(t.Context(), begun, size, busy); err != nil {
		t.Fatal(err)
	}
	c.shows(v1.PersistentVolumeClaimNodeResizeInProgress, pending, foreign, failed)

	tooLarge := fmt.Errorf("expand: %w", status.Error(codes.OutOfRange, "too large"))
	if err := claims.NotGrown(t.Context(), c.read(), size, tooLarge); err != nil {
		t.Fatal(err)
	}
	c.shows(v1.PersistentVolumeClaimNodeResizeInfeasible, pending, foreign, failed)

	if err := claims.Grown(t.Context(), c.read(), size); err != nil {
		t.Fatal(err)
	}
	c.shows("", foreign)
	if have := c.read().Status.Capacity[v1.ResourceStorage]; have.String() != "2Gi" {
		t.Errorf("the claim has %s", have.String())
	}
}

// Between two attempts somebody has the claim ask for less: the resizer begins with that only when the node
// has given up.
func TestASizeThatIsNotAskedForAnyMoreIsGivenUp(t *testing.T) {
	server := kubetest.Start(t)
	claim := &v1.PersistentVolumeClaim{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "PersistentVolumeClaim"},
		ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "data", UID: "u"},
	}
	claim.Spec.Resources.Requests = v1.ResourceList{v1.ResourceStorage: resource.MustParse("9Gi")}
	claim.Status.AllocatedResources = v1.ResourceList{v1.ResourceStorage: resource.MustParse("9Gi")}
	server.Put(claim)

	claims := Status{Claims: kube.Claims(server.Client())}
	c := claimAt{t: t, server: server}
	fails := func(code codes.Code) {
		t.Helper()
		begun, err := claims.Growing(t.Context(), c.read())
		if err != nil {
			t.Fatal(err)
		}
		err = claims.NotGrown(t.Context(), begun, resource.MustParse("9Gi"), status.Error(code, "no"))
		if err != nil {
			t.Fatal(err)
		}
	}

	fails(codes.Unavailable)
	c.shows(v1.PersistentVolumeClaimNodeResizeInProgress)
	fails(codes.PermissionDenied)
	fails(codes.PermissionDenied)
	c.shows(v1.PersistentVolumeClaimNodeResizeInProgress, v1.PersistentVolumeClaimNodeResizeError)

	edited := c.read()
	edited.Spec.Resources.Requests[v1.ResourceStorage] = resource.MustParse("5Gi")
	server.Put(edited)
	fails(codes.Unavailable)
	c.shows(v1.PersistentVolumeClaimNodeResizeInProgress, v1.PersistentVolumeClaimNodeResizeError)
	fails(codes.PermissionDenied)
	c.shows(v1.PersistentVolumeClaimNodeResizeInfeasible, v1.PersistentVolumeClaimNodeResizeError)
}

// The claim goes on asking for what it was made with.
func TestWhatAnAdministratorMakesLargerIsTriedUntilItWorks(t *testing.T) {
	server := kubetest.Start(t)
	claim := &v1.PersistentVolumeClaim{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "PersistentVolumeClaim"},
		ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "data", UID: "u"},
	}
	claim.Spec.Resources.Requests = v1.ResourceList{v1.ResourceStorage: resource.MustParse("1Gi")}
	claim.Status.Capacity = claim.Spec.Resources.Requests
	server.Put(claim)

	pv := &v1.PersistentVolume{}
	pv.Spec.Capacity = v1.ResourceList{v1.ResourceStorage: resource.MustParse("2Gi")}
	claims := Status{Claims: kube.Claims(server.Client())}
	c := claimAt{t: t, server: server}
	tries := 0
	expand := func(context.Context, resource.Quantity) error {
		if tries++; tries < 4 {
			return errors.New("busy")
		}
		return nil
	}

	for try := range 4 {
		if err := Grow(t.Context(), claims, c.read(), pv, expand); (err == nil) != (try == 3) {
			t.Errorf("try %d: %v", try, err)
		}
	}
	if have := c.read().Status.Capacity[v1.ResourceStorage]; have.String() != "2Gi" || tries != 4 {
		t.Errorf("the claim has %s after %d tries", have.String(), tries)
	}
}
