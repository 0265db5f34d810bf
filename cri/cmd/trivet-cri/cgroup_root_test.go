package main

import (
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// A kubelet with the driver systemd, which did not ask what the runtime has.
func TestPodThatIsNamedForTheOtherCgroupDriverIsRefused(t *testing.T) {
	n := newNode(t)
	config := &runtimeapi.PodSandboxConfig{
		Metadata: &runtimeapi.PodSandboxMetadata{Name: "p", Namespace: "test", Uid: "1"},
		Linux:    &runtimeapi.LinuxPodSandboxConfig{CgroupParent: "kubepods-burstable-pod1.slice"},
	}

	_, err := n.pods.RunPodSandbox(t.Context(), &runtimeapi.RunPodSandboxRequest{Config: config})
	if status.Code(err) != codes.InvalidArgument {
		t.Errorf("%v, want InvalidArgument", err)
	}

	list, err := n.pods.ListPodSandbox(t.Context(), &runtimeapi.ListPodSandboxRequest{})
	if err != nil || len(list.Items) > 0 {
		t.Errorf("pods %v, %v; want none", list.GetItems(), err)
	}
}
