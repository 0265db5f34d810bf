package nodestatus

import (
	"slices"
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/trivet-node/trivet/node/runtime"
	"github.com/trivet-node/trivet/node/threshold"
)

func TestWhatThresholdsKeepFreeIsNotAllocatable(t *testing.T) {
	capacity := v1.ResourceList{"memory": resource.MustParse("10Gi"),
		"ephemeral-storage": resource.MustParse("100Gi")}
	reserved := v1.ResourceList{"memory": resource.MustParse("1Gi")}
	for name, c := range map[string]struct {
		hard         map[string]string
		all          bool
		memory, disk string
	}{
		"amount": {map[string]string{"memory.available": "1Gi", "nodefs.available": "5Gi"}, false, "8Gi",
			"95Gi"},
		// kubelet's shares have the precision of 32 bits.
		"share": {map[string]string{"memory.available": "10%", "nodefs.available": "10%"}, false,
			"8589934576", "96636764000"},
		"ignored": {map[string]string{"memory.available": "10%", "nodefs.available": "10%"}, true, "9Gi",
			"100Gi"},
		"none": {nil, false, "9Gi", "100Gi"},
	} {
		set, err := threshold.ParseSet(c.hard)
		if err != nil {
			t.Fatal(err)
		}

		cfg := Config{Thresholds: set, Reserved: reserved, AllAllocatable: c.all}
		got := reporter(t, cfg).allocatable(capacity)
		memory, disk := got["memory"], got["ephemeral-storage"]
		if memory.Cmp(resource.MustParse(c.memory)) != 0 || disk.Cmp(resource.MustParse(c.disk)) != 0 {
			t.Errorf("%s: memory %s, disk %s, want %s and %s", name, memory.String(), disk.String(), c.memory,
				c.disk)
		}
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
	var images []*runtime.Image
	for i := range 60 {
		images = append(
			images,
			&runtime.Image{
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

func TestTheLastImageThatGoesIsNotShownAnyMore(t *testing.T) {
	had := &v1.NodeStatus{Images: []v1.ContainerImage{{Names: []string{"a"}}}}
	patch, err := statusPatch(had, &v1.NodeStatus{})
	if err != nil || !strings.Contains(string(patch), `"images":null`) {
		t.Errorf("%s, %v", patch, err)
	}
}

func TestSwapIsShownAsLongAsItIsOn(t *testing.T) {
	on := func() *v1.NodeStatus {
		return &v1.NodeStatus{NodeInfo: v1.NodeSystemInfo{Swap: &v1.NodeSwapStatus{Capacity: new(int64(1))}}}
	}
	for want, swap := range map[string]*v1.NodeStatus{
		`"swap":{"capacity":1}`: on(),
		`"swap":null`:           {},
	} {
		patch, err := statusPatch(on(), swap)
		if err != nil || !strings.Contains(string(patch), want) {
			t.Errorf("%s, %v, want %s in it", patch, err, want)
		}
	}
	if !sameDescription(on(), on()) || sameDescription(on(), &v1.NodeStatus{}) {
		t.Error("a change is that of swap alone")
	}
}

func TestAllImagesAreListedWhenThereIsNoLimit(t *testing.T) {
	images := make([]*runtime.Image, 60)
	for i := range images {
		images[i] = &runtime.Image{}
	}
	if got := nodeImages(images, -1); len(got) != 60 {
		t.Errorf("%d images of 60", len(got))
	}
}
