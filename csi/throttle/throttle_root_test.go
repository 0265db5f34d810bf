package throttle_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/trivet-node/trivet/csi/nodetest"
	"github.com/trivet-node/trivet/csi/publish"
	"github.com/trivet-node/trivet/csi/throttle"
	"github.com/trivet-node/trivet/csi/volume"
	"github.com/trivet-node/trivet/internal/cgroup"
	"github.com/trivet-node/trivet/internal/testenv"
)

// node is a driver whose pods have control groups below one of the test's own.
type node struct {
	*nodetest.Node
	host *cgroup.Host
	root string
}

func newNode(t *testing.T) *node {
	t.Helper()
	testenv.Root(t)
	testenv.Program(t, "dd", "coreutils")
	host, err := cgroup.Open()
	if err != nil {
		t.Fatal(err)
	}

	n := &node{host: host, root: "/" + filepath.Base(testenv.ShortDir(t))}
	t.Cleanup(func() { n.end("/") })
	n.Node = nodetest.New(t, 1<<30)
	n.startPod()
	limits, err := throttle.New(host, n.root)
	if err != nil {
		t.Fatal(err)
	}

	n.RestartLimiting(limits)
	return n
}

const pod = "0b1c"

// container is the group of the pod's container.
func (n *node) container() string { return n.root + "/kubepods/besteffort/pod" + pod + "/container" }

func (n *node) startPod() {
	n.T.Helper()
	if err := n.host.Create(n.container()); err != nil {
		n.T.Fatal(err)
	}
}

// end removes a group of the test.
func (n *node) end(group string) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := n.host.Remove(ctx, filepath.Join(n.root, group)); err != nil {
		n.T.Error(err)
	}
}

// write writes bytes to a path, as a process of the pod's container, and returns how long that took.
func (n *node) write(path string, bytes int64, how ...string) time.Duration {
	n.T.Helper()
	const block = 64 << 10
	dd := append([]string{
		"-c", `read start && exec "$@"`, "sh",
		"dd", "if=/dev/zero", "of=" + path, fmt.Sprintf("bs=%d", block),
		fmt.Sprintf("count=%d", bytes/block),
	}, how...)
	cmd := exec.CommandContext(n.T.Context(), "sh", dd...)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		n.T.Fatal(err)
	}

	var out strings.Builder
	cmd.Stderr = &out
	if err := cmd.Start(); err != nil {
		n.T.Fatal(err)
	}
	if err := n.host.Add(n.container(), cmd.Process.Pid); err != nil {
		n.T.Error(err)
	}

	began := time.Now()
	fmt.Fprintln(stdin, "go")
	stdin.Close()
	if err := cmd.Wait(); err != nil {
		n.T.Fatalf("%v: %s", err, out.String())
	}

	return time.Since(began)
}

// limits returns what is in a group's files about limits.
func (n *node) limits(group string) string {
	n.T.Helper()
	pattern := "blkio.throttle.*_device"
	if n.host.V2 {
		pattern = "io.max"
	}
	files, err := filepath.Glob(filepath.Join(n.host.Dir("blkio", group), pattern))
	if err != nil {
		n.T.Fatal(err)
	}

	var all string
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			n.T.Fatal(err)
		}
		all += string(text)
	}

	return all
}

// limitedGroup is the group whose limits count for the pod.
func (n *node) limitedGroup() string {
	if n.host.V2 {
		return n.root + "/kubepods"
	}
	return n.container()
}

// checkUnlimited fails the test if limits are left in groups that outlive the pod, or in others.
func (n *node) checkUnlimited(when string, others ...string) {
	n.T.Helper()
	for _, group := range append(others, n.root, n.root+"/kubepods") {
		if left := n.limits(group); left != "" {
			n.T.Errorf("%s there are limits of %s: %s", when, group, left)
		}
	}
}

// awaitLimited waits until the pod has limits.
func (n *node) awaitLimited(when string) {
	n.T.Helper()
	n.Eventually(when, func() error {
		if n.limits(n.limitedGroup()) == "" {
			return fmt.Errorf("%s has no limits", n.limitedGroup())
		}
		return nil
	})
}

const (
	mib       = 1 << 20
	perSecond = 4 * mib

	// This takes three seconds. The kernel lets some through at once, a second's worth on a busy machine.
	written, least = 12 * mib, 1500 * time.Millisecond
)

func TestLimitsHold(t *testing.T) {
	n := newNode(t)
	for _, c := range []struct {
		name    string
		request volume.Request
	}{
		{"made with limits", volume.Request{Limits: volume.Limits{WriteBytes: perSecond}}},
		{"image on the disk", volume.Request{Backend: "image", FSType: "ext4"}},
		{"raw block", volume.Request{Access: volume.Block}},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.request.Name, c.request.Required = c.name, 64*mib
			v := n.MustCreate(c.request)
			path := n.Use(v, pod)
			if v.Access != volume.Block {
				path = filepath.Join(path, "file")
			}
			n.modify(v, volume.Limits{WriteBytes: perSecond})
			n.awaitLimited("the pod uses the volume")

			for _, how := range []string{"oflag=direct", "conv=fsync"} {
				if took := n.write(path, written, how); took < least {
					t.Errorf("%s: %d bytes at %d per second took %v", how, written, perSecond, took)
				}
			}

			n.modify(v, volume.Limits{})
			n.checkUnlimited("after the limits were taken away", n.limitedGroup())
			n.Remove(v.ID, pod)
		})
	}
}

// modify is what ControllerModifyVolume does.
func (n *node) modify(v volume.Volume, l volume.Limits) {
	n.T.Helper()
	for range 2 {
		if _, err := n.Modify(n.T.Context(), v.ID, l); err != nil {
			n.T.Fatal(err)
		}
		if err := n.Limits.Enforce(n.T.Context(), v.ID); err != nil {
			n.T.Fatal(err)
		}
	}
}

func TestOperationsAreLimited(t *testing.T) {
	n := newNode(t)
	v := n.MustCreate(volume.Request{Name: "raw", Required: 64 * mib, Access: volume.Block})
	path := n.Use(v, pod)
	n.modify(v, volume.Limits{WriteOps: 32})
	n.awaitLimited("the pod uses the volume")
	if took := n.write(path, 96*64<<10, "oflag=direct"); took < least {
		t.Errorf("96 writes at 32 per second took %v", took)
	}
	n.Remove(v.ID, pod)
	n.checkUnlimited("after the volume was deleted")
}

func TestLimitsOutliveDriverAndPods(t *testing.T) {
	n := newNode(t)
	v := n.MustCreate(volume.Request{
		Name:     "limited",
		Required: 64 * mib,
		Limits:   volume.Limits{WriteBytes: perSecond},
	})
	n.Use(v, pod)
	n.awaitLimited("the pod uses the volume")

	// Modified while nobody can put it in force.
	n.Kill()
	n.Start()
	if got, err := n.Get(v.ID); err != nil || got.Limits != v.Limits {
		t.Errorf("after a restart: %+v, %v", got.Limits, err)
	}

	// The node agent makes all groups again.
	n.end("kubepods")
	n.startPod()
	n.awaitLimited("the groups were made again")

	n.Leave(v.ID, pod)
	n.checkUnlimited("when nobody uses the volume")
	n.Use(v, pod)
	n.awaitLimited("the pod uses the volume again")

	n.Reboot()
	n.end("/")
	n.startPod()
	n.Use(v, pod)
	n.awaitLimited("the pod uses the volume after a reboot")
	n.Remove(v.ID, pod)
	n.checkUnlimited("after the volume was deleted")
}

func TestGroupsWithOtherLimitsAreNamed(t *testing.T) {
	n := newNode(t)
	v := n.MustCreate(volume.Request{
		Name:     "limited",
		Required: 64 * mib,
		Limits:   volume.Limits{WriteBytes: perSecond},
	})
	n.Use(v, pod)
	n.awaitLimited("the pod uses the volume")
	n.Kill()

	staged, _, err := publish.Read(filepath.Join(n.State, "staged"))
	if err != nil || staged[v.ID].Limited == 0 {
		t.Fatalf("staged are %+v, %v", staged, err)
	}
	limits, err := throttle.New(n.host, n.root)
	if err != nil {
		t.Fatal(err)
	}
	differing := func() []string {
		groups, err := limits.Differing(staged[v.ID].Limited, v.Limits, []string{pod})
		if err != nil {
			t.Error(err)
		}
		return groups
	}

	if groups := differing(); len(groups) > 0 {
		t.Errorf("not in force for %q", groups)
	}
	err = n.host.LimitIO(n.limitedGroup(), staged[v.ID].Limited, cgroup.IOLimits{})
	if groups := differing(); err != nil || !slices.Equal(groups, []string{n.limitedGroup()}) {
		t.Errorf("lifted for %s, not in force for %q, %v", n.limitedGroup(), groups, err)
	}

	n.Start()
	n.awaitLimited("the driver runs again")
	n.Remove(v.ID, pod)
}

func TestPodWithoutGroupsGetsNoVolumeWithLimits(t *testing.T) {
	n := newNode(t)
	v := n.MustCreate(volume.Request{
		Name:     "limited",
		Required: 64 * mib,
		Limits:   volume.Limits{WriteBytes: perSecond},
	})
	n.end("kubepods")
	u := publish.Use{Access: v.Access}
	if err := n.Stage(t.Context(), v.ID, n.StagePath(v.ID), u); err != nil {
		t.Fatal(err)
	}
	err := n.Publish(t.Context(), v.ID, n.Target(v.ID, pod), u)
	if err == nil || !strings.Contains(err.Error(), "kubepods") {
		t.Errorf("published: %v", err)
	}
	n.startPod()
	n.Use(v, pod)
	n.Remove(v.ID, pod)
}
