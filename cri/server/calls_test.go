package server_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/trivet-node/trivet/cri/network"
	"github.com/trivet-node/trivet/cri/sandbox/sandboxtest"
)

func TestStatusSaysWhyTheNetworkIsNotReady(t *testing.T) {
	f := open(t)
	for _, cause := range []error{nil, network.ErrNotReady} {
		f.rest.networkErr = cause
		r, err := f.Status(t.Context(), &runtimeapi.StatusRequest{})
		if err != nil {
			t.Fatal(err)
		}

		conditions := r.Status.Conditions
		if !conditions[0].Status || conditions[1].Type != runtimeapi.NetworkReady ||
			conditions[1].Status != (cause == nil) || (conditions[1].Message != "") != (cause != nil) {
			t.Errorf("%v: conditions %v", cause, conditions)
		}

		h := r.RuntimeHandlers
		if len(h) != 2 || !h[0].Features.UserNamespaces || h[1].Features.UserNamespaces {
			t.Errorf("handlers %v", h)
		}
	}
}

func TestListsAreFiltered(t *testing.T) {
	f := open(t)
	web := f.run("web", "main", "side")
	db := f.run("db", "main")
	stop := &runtimeapi.StopContainerRequest{ContainerId: web[2]}
	if _, err := f.StopContainer(t.Context(), stop); err != nil {
		t.Fatal(err)
	}

	running := &runtimeapi.ContainerStateValue{State: runtimeapi.ContainerState_CONTAINER_RUNNING}
	for name, c := range map[string]struct {
		filter *runtimeapi.ContainerFilter
		want   int
	}{
		"none":            {nil, 3},
		"a pod":           {&runtimeapi.ContainerFilter{PodSandboxId: web[0][:20]}, 2},
		"an ID":           {&runtimeapi.ContainerFilter{Id: db[1][:20]}, 1},
		"a label":         {&runtimeapi.ContainerFilter{LabelSelector: map[string]string{"app": "db"}}, 1},
		"an absent label": {&runtimeapi.ContainerFilter{LabelSelector: map[string]string{"app": "x"}}, 0},
		"a state":         {&runtimeapi.ContainerFilter{State: running}, 2},
	} {
		r, err := f.ListContainers(t.Context(), &runtimeapi.ListContainersRequest{Filter: c.filter})
		if err != nil || len(r.Containers) != c.want {
			t.Errorf("filter by %s: %v, %v; want %d", name, r.GetContainers(), err, c.want)
		}
	}

	ready := &runtimeapi.PodSandboxStateValue{State: runtimeapi.PodSandboxState_SANDBOX_READY}
	for name, c := range map[string]struct {
		filter *runtimeapi.PodSandboxFilter
		want   int
	}{
		"none":    {nil, 2},
		"an ID":   {&runtimeapi.PodSandboxFilter{Id: web[0][:20]}, 1},
		"a label": {&runtimeapi.PodSandboxFilter{LabelSelector: map[string]string{"app": "web"}}, 1},
		"a state": {&runtimeapi.PodSandboxFilter{State: ready}, 2},
	} {
		r, err := f.ListPodSandbox(t.Context(), &runtimeapi.ListPodSandboxRequest{Filter: c.filter})
		if err != nil || len(r.Items) != c.want {
			t.Errorf("filter of pods by %s: %v, %v; want %d", name, r.GetItems(), err, c.want)
		}
	}
}

func TestPodEndsWithItsContainers(t *testing.T) {
	f := open(t)
	ids := f.run("web", "main", "side")
	for range 2 {
		stop := &runtimeapi.StopPodSandboxRequest{PodSandboxId: ids[0]}
		if _, err := f.StopPodSandbox(t.Context(), stop); err != nil {
			t.Fatal(err)
		}
	}

	for _, id := range ids[1:] {
		r, err := f.ContainerStatus(t.Context(), &runtimeapi.ContainerStatusRequest{ContainerId: id})
		if err != nil || r.Status.State != runtimeapi.ContainerState_CONTAINER_EXITED ||
			r.Status.ExitCode != 137 {
			t.Errorf("container: %v, %v", r, err)
		}
	}

	pod, err := f.PodSandboxStatus(t.Context(), &runtimeapi.PodSandboxStatusRequest{PodSandboxId: ids[0]})
	if err != nil || pod.Status.State != runtimeapi.PodSandboxState_SANDBOX_NOTREADY {
		t.Errorf("pod: %v, %v", pod, err)
	}

	for range 2 {
		remove := &runtimeapi.RemovePodSandboxRequest{PodSandboxId: ids[0]}
		if _, err := f.RemovePodSandbox(t.Context(), remove); err != nil {
			t.Fatal(err)
		}
	}

	if left := append(f.machine.Left(), f.node.Left()...); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

func TestPodWhoseContainerCannotBeRemovedIsKept(t *testing.T) {
	f := open(t)
	ids := f.run("web", "main")
	f.node.FailOn("Release", errors.New("busy"))
	remove := &runtimeapi.RemovePodSandboxRequest{PodSandboxId: ids[0]}
	if _, err := f.RemovePodSandbox(t.Context(), remove); err == nil {
		t.Error("no error")
	}

	status := &runtimeapi.PodSandboxStatusRequest{PodSandboxId: ids[0]}
	if _, err := f.PodSandboxStatus(t.Context(), status); err != nil {
		t.Errorf("%v: nobody would remove its container any more", err)
	}

	f.node.FailOn("Release", nil)
	if _, err := f.RemovePodSandbox(t.Context(), remove); err != nil {
		t.Error(err)
	}
}

// awaitEvents makes pods until a stream shows an event, so that it does not miss any after that.
func (f *fixture) awaitEvents(stream runtimeapi.RuntimeService_GetContainerEventsClient) {
	f.tb.Helper()
	first := make(chan error, 1)
	go func() {
		_, err := stream.Recv()
		first <- err
	}()

	for attempt := uint32(0); ; attempt++ {
		config := sandboxtest.Pod("early", false)
		config.Metadata.Attempt = attempt
		request := &runtimeapi.RunPodSandboxRequest{Config: config}
		if _, err := f.RunPodSandbox(f.tb.Context(), request); err != nil {
			f.tb.Fatal(err)
		}

		select {
		case err := <-first:
			if err != nil {
				f.tb.Fatal(err)
			}

			return

		default:
		}
	}
}

func TestEventsShowTheWholePod(t *testing.T) {
	f := open(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()

	stream, err := f.GetContainerEvents(ctx, &runtimeapi.GetEventsRequest{})
	if err != nil {
		t.Fatal(err)
	}

	f.awaitEvents(stream)
	ids := f.run("web", "main")
	types := ""
	for {
		e, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		if e.PodSandboxStatus.GetId() != ids[0] {
			continue
		}

		types += " " + strings.Split(e.ContainerEventType.String(), "_")[1]
		if e.ContainerId == ids[1] && len(e.ContainersStatuses) != 1 {
			t.Errorf("event %v does not show the container", e)
		}

		if e.ContainerEventType == runtimeapi.ContainerEventType_CONTAINER_STARTED_EVENT &&
			e.ContainerId == ids[1] {
			break
		}
	}

	if types != " STARTED CREATED STARTED" {
		t.Errorf("events%s", types)
	}
}

func TestCodesReachTheClient(t *testing.T) {
	f := open(t)
	ids := f.run("web", "main")
	ctx := t.Context()
	notFound := func(err error) bool { return status.Code(err) == codes.NotFound }
	if _, err := f.ContainerStatus(ctx, &runtimeapi.ContainerStatusRequest{
		ContainerId: "absent",
	}); !notFound(err) {
		t.Errorf("absent container: %v", err)
	}

	if _, err := f.PodSandboxStatus(ctx, &runtimeapi.PodSandboxStatusRequest{
		PodSandboxId: "absent",
	}); !notFound(err) {
		t.Errorf("absent pod: %v", err)
	}

	config := sandboxtest.Pod("slice", false)
	config.Linux.CgroupParent = "kubepods-pod1.slice"
	_, err := f.RunPodSandbox(ctx, &runtimeapi.RunPodSandboxRequest{Config: config})
	if status.Code(err) != codes.InvalidArgument {
		t.Errorf("cgroup parent of the other driver: %v", err)
	}

	if _, err := f.StopPodSandbox(ctx, &runtimeapi.StopPodSandboxRequest{PodSandboxId: ids[0]}); err != nil {
		t.Fatal(err)
	}

	exec := &runtimeapi.ExecRequest{ContainerId: ids[1], Cmd: []string{"true"}}
	if _, err := f.Exec(ctx, exec); status.Code(err) != codes.FailedPrecondition {
		t.Errorf("exec in a container that has ended: %v", err)
	}

	forward := &runtimeapi.PortForwardRequest{PodSandboxId: ids[0]}
	if _, err := f.PortForward(ctx, forward); status.Code(err) != codes.FailedPrecondition {
		t.Errorf("port-forward to a stopped pod: %v", err)
	}

	_, err = f.CheckpointContainer(ctx, &runtimeapi.CheckpointContainerRequest{})
	if status.Code(err) != codes.Unimplemented {
		t.Errorf("a call that is not served: %v", err)
	}
}

func TestStreamsAreOfWholeIDs(t *testing.T) {
	f := open(t)
	ids := f.run("web", "main")
	ctx, short := t.Context(), ids[1][:20]
	if r, err := f.Exec(ctx, &runtimeapi.ExecRequest{
		ContainerId: short,
		Cmd:         []string{"a"},
	}); err != nil || r.Url != "exec/"+ids[1] {
		t.Errorf("exec: %v, %v", r, err)
	}

	if r, err := f.Attach(ctx, &runtimeapi.AttachRequest{
		ContainerId: short,
	}); err != nil || r.Url != "attach/"+ids[1] {
		t.Errorf("attach: %v, %v", r, err)
	}

	forward := &runtimeapi.PortForwardRequest{PodSandboxId: ids[0][:20]}
	if r, err := f.PortForward(ctx, forward); err != nil || r.Url != "portforward/"+ids[0] {
		t.Errorf("port-forward: %v, %v", r, err)
	}

	sync := &runtimeapi.ExecSyncRequest{ContainerId: short, Cmd: []string{"a"}, Timeout: 3}
	if r, err := f.ExecSync(ctx, sync); err != nil || string(r.Stdout) != "[a] in "+ids[1]+" for 3s" {
		t.Errorf("exec: %v, %v", r, err)
	}

	sync.Cmd = []string{"a\x00b"}
	if _, err := f.ExecSync(ctx, sync); status.Code(err) != codes.InvalidArgument {
		t.Errorf("an argument with a zero byte: %v", err)
	}
}

func TestStatsAreOfRunningContainers(t *testing.T) {
	f := open(t)
	ids := f.run("web", "main", "ended")
	stop := &runtimeapi.StopContainerRequest{ContainerId: ids[2]}
	if _, err := f.StopContainer(t.Context(), stop); err != nil {
		t.Fatal(err)
	}

	r, err := f.ListContainerStats(t.Context(), &runtimeapi.ListContainerStatsRequest{})
	if err != nil || len(r.Stats) != 2 {
		t.Fatalf("%v, %v", r, err)
	}

	for _, st := range r.Stats {
		runs := st.Attributes.Id == ids[1]
		if st.WritableLayer.UsedBytes.Value != 7 || (st.Memory != nil) != runs {
			t.Errorf("%s: %v", st.Attributes.Metadata.Name, st)
		}
		if runs && (st.Memory.UsageBytes.Value == 0 || st.Cpu.UsageCoreNanoSeconds.Value == 0) {
			t.Errorf("usage %v", st)
		}
	}

	pods, err := f.ListPodSandboxStats(t.Context(), &runtimeapi.ListPodSandboxStatsRequest{})
	if err != nil || len(pods.Stats) != 1 || len(pods.Stats[0].Linux.Containers) != 2 {
		t.Errorf("pods: %v, %v", pods, err)
	}
}

func TestImagesArePulledShownAndRemoved(t *testing.T) {
	f := open(t)
	ctx, spec := t.Context(), &runtimeapi.ImageSpec{Image: "registry.example/app:1"}
	absent, err := f.images.ImageStatus(ctx, &runtimeapi.ImageStatusRequest{Image: spec})
	if err != nil || absent.Image != nil {
		t.Errorf("an image that does not exist: %v, %v", absent, err)
	}

	auth := &runtimeapi.AuthConfig{Username: "u", Password: "p"}
	pulled, err := f.images.PullImage(ctx, &runtimeapi.PullImageRequest{Image: spec, Auth: auth})
	if err != nil || pulled.ImageRef != "sha256:1" || f.rest.auth.Username != "u" {
		t.Errorf("pulled %v with %v, %v", pulled, f.rest.auth, err)
	}

	shown, err := f.images.ImageStatus(ctx, &runtimeapi.ImageStatusRequest{Image: spec, Verbose: true})
	if err != nil || shown.Image.GetUid().GetValue() != 1000 ||
		!strings.Contains(shown.Info["info"], "sha256:c2") {
		t.Errorf("shown: %v, %v", shown, err)
	}

	for name, want := range map[string]int{"": 1, spec.Image: 1, "other:1": 0} {
		filter := &runtimeapi.ImageFilter{Image: &runtimeapi.ImageSpec{Image: name}}
		list, err := f.images.ListImages(ctx, &runtimeapi.ListImagesRequest{Filter: filter})
		if err != nil || len(list.Images) != want {
			t.Errorf("list by %q: %v, %v", name, list, err)
		}
	}

	f.run("web", "app")
	usage, err := f.images.ImageFsInfo(ctx, &runtimeapi.ImageFsInfoRequest{})
	if err != nil || usage.ImageFilesystems[0].UsedBytes.Value != 1000 ||
		usage.ContainerFilesystems[0].UsedBytes.Value != 7 {
		t.Errorf("file systems: %v, %v", usage, err)
	}

	for range 2 {
		if _, err := f.images.RemoveImage(ctx, &runtimeapi.RemoveImageRequest{Image: spec}); err != nil {
			t.Error(err)
		}
	}

	_, err = f.images.PullImage(ctx, &runtimeapi.PullImageRequest{})
	if status.Code(err) != codes.InvalidArgument {
		t.Errorf("no name: %v", err)
	}
}

func TestCallsThatAreNotServedSaySo(t *testing.T) {
	f, ctx := open(t), t.Context()
	_, checkpoint := f.CheckpointContainer(ctx, &runtimeapi.CheckpointContainerRequest{})
	_, pod := f.CheckpointPod(ctx, &runtimeapi.CheckpointPodRequest{})
	_, restore := f.RestorePod(ctx, &runtimeapi.RestorePodRequest{})
	for _, err := range []error{checkpoint, pod, restore} {
		if status.Code(err) != codes.Unimplemented {
			t.Errorf("error %v, want %s", err, codes.Unimplemented)
		}
	}
}
