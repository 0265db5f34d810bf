package nodestatus

import (
	"context"
	"errors"
	"log/slog"
	"testing"

	v1 "k8s.io/api/core/v1"

	"github.com/trivet-node/trivet/internal/kube"
	"github.com/trivet-node/trivet/node/runtime"
)

// silent is a runtime that says nothing of itself.
type silent struct{}

func (silent) Info(context.Context) (runtime.Info, error)           { return runtime.Info{}, nil }
func (silent) ListImages(context.Context) ([]*runtime.Image, error) { return nil, nil }
func (silent) UpdatePodCIDR(_ context.Context, _ string) error      { return nil }

func reporter(t *testing.T, cfg Config) *Reporter {
	t.Helper()
	if cfg.RootDir == "" {
		cfg.RootDir = t.TempDir()
	}
	cfg.Log = slog.New(slog.DiscardHandler)
	return New(cfg, kube.Objects[v1.Node]{}, silent{}, nil)
}

func TestPressuresAreConditions(t *testing.T) {
	now := []v1.NodeConditionType{v1.NodeDiskPressure, v1.NodeMemoryPressure}
	on := map[v1.NodeConditionType]bool{}
	for _, f := range findings(now, runtime.Info{}, errors.New("down")) {
		on[f.kind] = f.on
	}

	want := map[v1.NodeConditionType]bool{
		v1.NodeMemoryPressure: true,
		v1.NodeDiskPressure:   true,
		v1.NodePIDPressure:    false,
		v1.NodeReady:          false,
	}
	for kind, is := range want {
		if got, there := on[kind]; got != is || !there {
			t.Errorf("%s: %v", kind, got)
		}
	}
}
