package nodestatus

import (
	"context"
	"errors"
	"log/slog"
	"slices"
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

// told are the reasons of events about the node.
type told []string

func (e *told) Record(_ v1.ObjectReference, _, reason, message string) {
	*e = append(*e, reason)
	if want := "Node n status is now: " + reason; message != want {
		*e = append(*e, message)
	}
}

func TestConditionsThatChangeAreEventsOfKubelets(t *testing.T) {
	var events told
	r := reporter(t, Config{Name: "n"})
	r.events = &events

	all := []v1.NodeConditionType{v1.NodeDiskPressure, v1.NodeMemoryPressure, v1.NodePIDPressure}
	up := runtime.Info{RuntimeReady: true, NetworkReady: true}
	var calm, pressed v1.NodeStatus
	apply(&calm, findings(nil, up, nil), now)
	apply(&pressed, findings(all, runtime.Info{}, nil), now)

	r.announce(&calm, &pressed)
	r.announce(&pressed, &pressed)
	r.announce(&pressed, &calm)
	want := told{
		"NodeNotReady", "NodeHasInsufficientMemory", "NodeHasDiskPressure", "NodeHasInsufficientPID",
		"NodeReady", "NodeHasSufficientMemory", "NodeHasNoDiskPressure", "NodeHasSufficientPID",
	}
	if !slices.Equal(events, want) {
		t.Errorf("%q, want %q", events, want)
	}
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
