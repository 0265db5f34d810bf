package heartbeat

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/trivet-node/trivet/node/runtime"
	"github.com/trivet-node/trivet/node/threshold"
)

// images is a runtime that only knows where its images are.
type images string

func (i images) ImageDir(context.Context) (string, error) {
	if i == "" {
		return "", errors.New("unknown")
	}
	return string(i), nil
}
func (images) Info(context.Context) (runtime.Info, error)       { return runtime.Info{}, nil }
func (images) ListImages(context.Context) ([]*cri.Image, error) { return nil, nil }
func (images) UpdatePodCIDR(_ context.Context, _ string) error  { return nil }

func heart(t *testing.T, cfg Config, imageDir string) *Heart {
	t.Helper()
	if cfg.RootDir == "" {
		cfg.RootDir = t.TempDir()
	}
	return New(cfg, nil, nil, images(imageDir), nil, slog.New(slog.DiscardHandler))
}

func TestEveryFormOfAThresholdBringsPressure(t *testing.T) {
	// more than any machine has
	all := "1000000000Gi"
	for _, c := range []struct {
		signal, value string
		want          v1.NodeConditionType
	}{
		{"memory.available", all, v1.NodeMemoryPressure},
		{"memory.available", "99.99%", v1.NodeMemoryPressure},
		{"nodefs.available", all, v1.NodeDiskPressure},
		{"nodefs.available", "99.99%", v1.NodeDiskPressure},
		{"nodefs.inodesFree", all, v1.NodeDiskPressure},
		{"imagefs.available", all, v1.NodeDiskPressure},
		{"imagefs.available", "99.99%", v1.NodeDiskPressure},
		{"pid.available", all, v1.NodePIDPressure},
		{"memory.available", "1", ""},
		{"memory.available", "0%", ""},
		{"pid.available", "0.01%", ""},
	} {
		set, err := threshold.ParseSet(map[string]string{c.signal: c.value})
		if err != nil {
			t.Fatal(err)
		}

		h := heart(t, Config{Thresholds: set}, t.TempDir())
		h.inspect(t.Context(), runtime.Info{}, nil)
		got := h.Pressure()
		if c.want == "" && len(got) > 0 || c.want != "" &&
			!slices.Equal(got, []v1.NodeConditionType{c.want}) {
			t.Errorf("%s: %s: %v, want %q", c.signal, c.value, got, c.want)
		}
	}
}

func TestPressureIsShownForAWhileWhenItIsOver(t *testing.T) {
	h := heart(t, Config{PressureHold: 5 * time.Minute}, "")
	if h.held(v1.NodeMemoryPressure, false, now) {
		t.Error("pressure that never was")
	}

	if !h.held(v1.NodeMemoryPressure, true, now) ||
		!h.held(v1.NodeMemoryPressure, false, now.Add(299*time.Second)) {
		t.Error("pressure ends too soon")
	}

	if len(h.Pressure()) != 1 {
		t.Error("a pressure that is held does not count for pods")
	}
	if h.held(v1.NodeMemoryPressure, false, now.Add(5*time.Minute)) || len(h.Pressure()) != 0 {
		t.Error("pressure does not end")
	}
}

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
		"share": {map[string]string{"memory.available": "10%", "nodefs.available": "10%"}, false, "8Gi",
			"90Gi"},
		"ignored": {map[string]string{"memory.available": "10%", "nodefs.available": "10%"}, true, "9Gi",
			"100Gi"},
		"none": {nil, false, "9Gi", "100Gi"},
	} {
		set, err := threshold.ParseSet(c.hard)
		if err != nil {
			t.Fatal(err)
		}

		got := heart(t, Config{Thresholds: set, Reserved: reserved, AllAllocatable: c.all},
			"").allocatable(capacity)
		memory, disk := got["memory"], got["ephemeral-storage"]
		if memory.Cmp(resource.MustParse(c.memory)) != 0 || disk.Cmp(resource.MustParse(c.disk)) != 0 {
			t.Errorf("%s: memory %s, disk %s, want %s and %s", name, memory.String(), disk.String(), c.memory,
				c.disk)
		}
	}
}
