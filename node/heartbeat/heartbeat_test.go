package heartbeat

import (
	"encoding/json"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/trivet-node/trivet/node/runtime"
)

var now = time.Unix(1_800_000_000, 0)

func TestANodeIsReadyOnlyWithItsRuntimeAndNetwork(t *testing.T) {
	for name, c := range map[string]struct {
		info runtime.Info
		err  error
		want string
	}{
		"good": {runtime.Info{RuntimeReady: true, NetworkReady: true}, nil, ""},
		"no runtime": {
			runtime.Info{},
			errors.New("connection refused"),
			"container runtime is down: connection refused",
		},
		"no network": {
			runtime.Info{RuntimeReady: true, NetworkWhy: "NoConfig: cni"},
			nil,
			"NetworkReady=false reason:NoConfig: cni",
		},
	} {
		f := ready(c.info, c.err)
		if f.on != (c.want == "") || !strings.Contains(f.message, c.want) {
			t.Errorf("%s: %+v", name, f)
		}
	}
}

func TestTransitionTimesMoveOnlyWithTheStatus(t *testing.T) {
	s := &v1.NodeStatus{
		Conditions: []v1.NodeCondition{{Type: v1.NodeNetworkUnavailable, Status: v1.ConditionFalse}},
	}
	good := []finding{{v1.NodeReady, true, "KubeletReady", "ok"}}
	if !apply(s, good, now) {
		t.Error("a new condition is no change")
	}
	if apply(s, good, now.Add(time.Minute)) {
		t.Error("the time alone is a change")
	}

	c := findCondition(s, v1.NodeReady)
	if !c.LastTransitionTime.Time.Equal(now) || !c.LastHeartbeatTime.Time.Equal(now.Add(time.Minute)) {
		t.Errorf("%+v", c)
	}

	if !apply(s, []finding{{v1.NodeReady, false, "KubeletNotReady", "bad"}}, now.Add(time.Hour)) ||
		!findCondition(s, v1.NodeReady).LastTransitionTime.Time.Equal(now.Add(time.Hour)) {
		t.Error("a change of status did not move its time")
	}

	patch, err := statusPatch(s)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(patch), string(v1.NodeNetworkUnavailable)) {
		t.Errorf("the patch writes a condition of others: %s", patch)
	}

	var m map[string]any
	if err := json.Unmarshal(patch, &m); err != nil {
		t.Fatal(err)
	}
}

func TestAllocatableIsNeverNegative(t *testing.T) {
	got := minus(
		v1.ResourceList{"cpu": resource.MustParse("2"), "memory": resource.MustParse("1Gi")},
		v1.ResourceList{"cpu": resource.MustParse("500m"), "memory": resource.MustParse("2Gi")},
	)
	if cpu, memory := got["cpu"], got["memory"]; cpu.MilliValue() != 1500 || memory.Value() != 0 {
		t.Errorf("%v", got)
	}
}

func TestTheLargestImagesAreListed(t *testing.T) {
	var images []*cri.Image
	for i := range 60 {
		images = append(
			images,
			&cri.Image{
				Size:        uint64(i),
				RepoDigests: []string{"d"},
				RepoTags:    slices.Repeat([]string{"t"}, 9),
			},
		)
	}

	got := nodeImages(images, 50)
	if len(got) != 50 || got[0].SizeBytes != 59 || len(got[0].Names) != maxImageNames {
		t.Errorf("%d images, first %+v", len(got), got[0])
	}
}

func TestAllImagesAreListedWhenThereIsNoLimit(t *testing.T) {
	images := make([]*cri.Image, 60)
	for i := range images {
		images[i] = &cri.Image{}
	}
	if got := nodeImages(images, -1); len(got) != 60 {
		t.Errorf("%d images of 60", len(got))
	}
}

func TestOnlyNewerVersionsOfTheNodeAreKept(t *testing.T) {
	h := New(Config{}, nil, nil, nil, nil, slog.New(slog.DiscardHandler))
	node := func(uid, version, cidr string) *v1.Node {
		return &v1.Node{
			ObjectMeta: metav1.ObjectMeta{UID: types.UID(uid), Name: "n", ResourceVersion: version},
			Spec:       v1.NodeSpec{PodCIDRs: []string{cidr}},
		}
	}

	h.Saw(node("a", "5", "10.0.0.0/24"))
	h.Saw(node("a", "4", "10.0.9.0/24"))
	if h.Node().Spec.PodCIDRs[0] != "10.0.0.0/24" {
		t.Error("an older version was taken")
	}

	h.Saw(node("a", "6", "10.0.1.0/24"))
	select {
	case <-h.nudge:
	default:
		t.Error("new pod ranges are no reason to look")
	}
}

func TestANodeThatWasDeletedIsReportedAtOnce(t *testing.T) {
	h := New(
		Config{Register: true, ReportFrequency: time.Hour},
		nil,
		nil,
		nil,
		nil,
		slog.New(slog.DiscardHandler),
	)

	node := func(uid types.UID) *v1.Node {
		return &v1.Node{
			ObjectMeta: metav1.ObjectMeta{UID: uid, Name: "n"},
		}
	}

	h.Saw(node("a"))
	if h.due(time.Now()) {
		t.Error("due without need")
	}
	if err := (*ownNode)(h).Delete(node("a")); err != nil {
		t.Fatal(err)
	}
	if !h.due(time.Now()) || len(h.nudge) == 0 {
		t.Error("not due, or not at once")
	}

	h.Saw(node("b"))
	if h.due(time.Now()) {
		t.Error("due though it is registered again")
	}
}

func TestMachineIsRead(t *testing.T) {
	c, err := capacity(t.TempDir(), 110)
	if err != nil {
		t.Fatal(err)
	}

	for _, name := range []v1.ResourceName{
		v1.ResourceCPU,
		v1.ResourceMemory,
		v1.ResourceEphemeralStorage,
		v1.ResourcePods,
	} {
		if q := c[name]; q.Sign() <= 0 {
			t.Errorf("%s is %s", name, q.String())
		}
	}

	if i := systemInfo(); i.KernelVersion == "" || i.BootID == "" || i.OperatingSystem != "linux" {
		t.Errorf("%+v", i)
	}
	if n, limit, err := pids(); err != nil || n <= 0 || limit <= n {
		t.Errorf("%d of %d processes, %v", n, limit, err)
	}
}
