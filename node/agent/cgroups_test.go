package agent

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/trivet-node/trivet/internal/cgroup"
	"github.com/trivet-node/trivet/internal/program"
	"github.com/trivet-node/trivet/node/config"
	"github.com/trivet-node/trivet/node/threshold"
)

func TestSystemdDriverIsRefusedWhereSystemdDoesNotRun(t *testing.T) {
	for _, c := range []struct {
		driver  string
		running bool
		slices  bool
		refused bool
	}{
		{"systemd", true, true, false},
		{"systemd", false, false, true},
		{"cgroupfs", true, true, false},
		{"cgroupfs", false, false, false},
	} {
		got, err := slicesFor(c.driver, c.running)
		_, refused := errors.AsType[*program.CantRunError](err)
		if refused != c.refused || (got != nil) != c.slices {
			t.Errorf("driver %s, systemd runs %v: %v, %v", c.driver, c.running, got, err)
		}
	}
}

// groups are control groups in memory.
type groups struct {
	limits map[string]cgroup.Limits
	events []string
	err    error
}

func (g *groups) Enforce(_ context.Context, name string, limits cgroup.Limits) error {
	g.limits[name] = limits
	return g.err
}

func (g *groups) Record(about v1.ObjectReference, kind, reason, message string) {
	g.events = append(g.events, about.Name+" "+kind+" "+reason+" "+message)
}

func TestDaemonsAreHeldToWhatIsReservedForThem(t *testing.T) {
	reserved := v1.ResourceList{
		v1.ResourceCPU:              resource.MustParse("500m"),
		v1.ResourceMemory:           resource.MustParse("1Gi"),
		v1.ResourceEphemeralStorage: resource.MustParse("1Gi"),
		"pid":                       resource.MustParse("1000"),
	}
	daemons := []config.Daemons{
		{Name: "System Reserved", Group: "/system", Reserved: reserved, Protected: true},
		{Name: "Kube Reserved", Group: "/kube", Reserved: reserved, Compressible: true, Protected: true},
	}

	g := &groups{limits: map[string]cgroup.Limits{}}
	if err := holdDaemons(t.Context(), g, daemons, announcer{events: g, node: "n"}); err != nil {
		t.Fatal(err)
	}

	want := map[string]cgroup.Limits{
		"/system": {CPUShares: 512, Memory: 1 << 30, MemoryMin: new(int64(1 << 30)), PIDs: 1000},
		"/kube":   {CPUShares: 512},
	}
	if diff := cmp.Diff(want, g.limits); diff != "" {
		t.Error(diff)
	}

	events := []string{
		"n Normal NodeAllocatableEnforced Updated limits on system reserved cgroup /system",
		"n Normal NodeAllocatableEnforced Updated limits on kube reserved cgroup /kube",
	}
	if diff := cmp.Diff(events, g.events); diff != "" {
		t.Error(diff)
	}
}

func TestAGroupOfDaemonsThatIsNotThereEndsTheStart(t *testing.T) {
	g := &groups{
		limits: map[string]cgroup.Limits{},
		err:    errors.New(`cgroup ["kube"] has some missing paths: /sys/fs/cgroup/memory/kube`),
	}
	daemons := []config.Daemons{{Name: "Kube Reserved", Group: "/kube", Compressible: true}}
	err := holdDaemons(t.Context(), g, daemons, announcer{events: g, node: "n"})
	cant, ok := errors.AsType[*program.CantRunError](err)
	want := `Failed to enforce Kube Reserved Compressible Cgroup Limits on "/kube": ` +
		`cgroup ["kube"] has some missing paths: /sys/fs/cgroup/memory/kube`
	if !ok || cant.What != want {
		t.Errorf("error %v, want %s", err, want)
	}
	event := "n Warning FailedNodeAllocatableEnforcement " + want
	if diff := cmp.Diff([]string{event}, g.events); diff != "" {
		t.Error(diff)
	}
}

func TestPodsShareWhatIsNotReservedUnlessTheyAreNotHeldToIt(t *testing.T) {
	cfg := defaults(t)
	reserve("memory", "1Gi")(&cfg)
	m := proc(t, nil)
	memory, err := m.Memory()
	if err != nil {
		t.Fatal(err)
	}

	for hold, want := range map[bool]int64{true: memory.Total - 1<<30, false: memory.Total} {
		cfg.Cgroups.HoldPods = hold
		share, err := shareOfPods(cfg, m)
		if got := share.Memory().Value(); err != nil || got != want {
			t.Errorf("held to it %v: %d bytes, %v; want %d", hold, got, err, want)
		}
	}
}

func TestMoreThanTheMachineHasCannotBeReserved(t *testing.T) {
	capacity := v1.ResourceList{
		v1.ResourceCPU:    resource.MustParse("4"),
		v1.ResourceMemory: resource.MustParse("8Gi"),
	}
	for _, c := range []struct {
		cpu, memory, free string
		want              string
	}{
		{"4", "8Gi", "", ""},
		{"1", "7Gi", "1Gi", ""},
		{"1", "7Gi", "1025Mi", `Resource "memory" has a reservation of 8193Mi but capacity of 8Gi.`},
		{"1", "7Gi", "20%", `Resource "memory" has a reservation of`},
		{"4100m", "1Gi", "", `Resource "cpu" has a reservation of 4100m but capacity of 4.`},
	} {
		r := config.Resources{
			Reserved: v1.ResourceList{
				v1.ResourceCPU:    resource.MustParse(c.cpu),
				v1.ResourceMemory: resource.MustParse(c.memory),
			},
			EvictionHard: threshold.Set{},
		}
		if c.free != "" {
			free, err := threshold.Parse(c.free)
			if err != nil {
				t.Fatal(err)
			}
			r.EvictionHard[threshold.Memory] = free
		}

		err := checkReserved(r, capacity)
		if (err != nil) != (c.want != "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v", c, err)
		}
	}
}
