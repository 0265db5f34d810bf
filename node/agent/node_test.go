package agent

import (
	"errors"
	"net/netip"
	"slices"
	"testing"

	"github.com/trivet-node/trivet/internal/kube"
	"github.com/trivet-node/trivet/internal/program"
	"github.com/trivet-node/trivet/node/config"
)

func TestPodsPerCoreLowersMaxPods(t *testing.T) {
	for _, c := range []struct{ most, perCore, cores, want int64 }{
		{110, 0, 2, 110},
		{110, 10, 2, 20},
		{110, 100, 2, 110},
	} {
		if got := maxPods(c.most, c.perCore, c.cores); got != c.want {
			t.Errorf("maxPods %d, podsPerCore %d, %d cores: %d, want %d",
				c.most, c.perCore, c.cores, got, c.want)
		}
	}
}

func TestFeaturesAreDeclaredWhenTheirGateIsOn(t *testing.T) {
	all := declaredFeatures(config.Gates{RestartAllContainers: true, ResizePods: true})
	if len(all) != 3 || !slices.IsSorted(all) {
		t.Errorf("%v", all)
	}

	// This one is locked to on.
	want := []string{"InPlacePodVerticalScalingInitContainers"}
	if got := declaredFeatures(config.Gates{}); !slices.Equal(got, want) {
		t.Errorf("%v, with all gates off", got)
	}
}

func TestTheNodesAddressIsGivenOrTheOneTowardsTheServer(t *testing.T) {
	given := []netip.Addr{netip.MustParseAddr("192.0.2.7"), netip.MustParseAddr("2001:db8::7")}
	got, err := nodeIPs(given, kube.At("https://127.0.0.1:6443"))
	if err != nil || !slices.Equal(got, []string{"192.0.2.7", "2001:db8::7"}) {
		t.Errorf("given: %v, %v", got, err)
	}

	got, err = nodeIPs(nil, kube.At("https://127.0.0.1:6443"))
	if err != nil || !slices.Equal(got, []string{"127.0.0.1"}) {
		t.Errorf("found: %v, %v", got, err)
	}

	_, err = nodeIPs(nil, kube.At("not a URL"))
	if _, advises := errors.AsType[*program.CantRunError](err); !advises {
		t.Errorf("no server: %v, want an error that says what to do", err)
	}
}
