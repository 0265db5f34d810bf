package nodestatus

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"

	"github.com/trivet-node/trivet/internal/kube"
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
func (images) Info(context.Context) (runtime.Info, error)           { return runtime.Info{}, nil }
func (images) ListImages(context.Context) ([]*runtime.Image, error) { return nil, nil }
func (images) UpdatePodCIDR(_ context.Context, _ string) error      { return nil }

func reporter(t *testing.T, cfg Config, imageDir string) *Reporter {
	t.Helper()
	if cfg.RootDir == "" {
		cfg.RootDir = t.TempDir()
	}
	cfg.Log = slog.New(slog.DiscardHandler)
	return New(cfg, kube.Objects[v1.Node]{}, images(imageDir), nil)
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

		r := reporter(t, Config{Thresholds: set}, t.TempDir())
		r.inspector.inspect(t.Context(), runtime.Info{}, nil)
		got := r.Pressure()
		if c.want == "" && len(got) > 0 || c.want != "" &&
			!slices.Equal(got, []v1.NodeConditionType{c.want}) {
			t.Errorf("%s: %s: %v, want %q", c.signal, c.value, got, c.want)
		}
	}
}

func TestPressureIsShownForAWhileWhenItIsOver(t *testing.T) {
	p := newPressures(5 * time.Minute)
	for _, c := range []struct {
		after time.Duration
		low   bool
		want  bool
	}{
		{0, false, false},
		{0, true, true},
		{299 * time.Second, false, true},
		{300 * time.Second, false, false},
		{301 * time.Second, true, true},
	} {
		if got := p.update(v1.NodeMemoryPressure, c.low, now.Add(c.after)); got != c.want {
			t.Errorf("after %v, low %v: %v", c.after, c.low, got)
		}
		if counts := len(p.all()) > 0; counts != c.want {
			t.Errorf("after %v: counts for pods: %v", c.after, counts)
		}
	}
}
