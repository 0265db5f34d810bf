package unit

import (
	"math"
	"strings"

	systemd1 "github.com/coreos/go-systemd/v22/dbus"
	"github.com/godbus/dbus/v5"

	"github.com/trivet-node/trivet/internal/cgroup"
	"github.com/trivet-node/trivet/internal/systemd"
)

// Property is one of a unit's (org.freedesktop.systemd1(5)).
type Property struct {
	Name  string
	Value any
}

const (
	infinity = math.MaxUint64
	second   = 1_000_000 // microseconds
	// defaultPeriod is systemd's and the kernel's.
	defaultPeriod = 100_000
	// quotaStep is what systemd rounds quotas up to: one percent of a CPU.
	quotaStep = second / 100
)

// Properties are the properties that say the same as the limits.
func Properties(l cgroup.Limits, v2 bool) []Property {
	var out []Property
	add := func(name string, value any) { out = append(out, Property{name, value}) }

	memory, cpu, shares := "MemoryLimit", "CPUShares", l.CPUShares
	if v2 {
		memory, cpu, shares = "MemoryMax", "CPUWeight", cgroup.Weight(l.CPUShares)
	}
	if l.CPUShares != 0 {
		add(cpu, shares)
	}
	if l.CPUQuota != 0 {
		add("CPUQuotaPerSecUSec", quotaPerSecond(l))
	}

	// systemd can set it since version 242
	if l.CPUQuota != 0 && l.Period() != defaultPeriod {
		add("CPUQuotaPeriodUSec", l.Period())
	}
	if l.Memory != 0 {
		add(memory, orInfinity(l.Memory))
	}
	if l.PIDs != 0 {
		add("TasksMax", orInfinity(l.PIDs))
	}

	return out
}

func orInfinity(n int64) uint64 {
	if n < 0 {
		return infinity
	}
	return uint64(n)
}

func quotaPerSecond(l cgroup.Limits) uint64 {
	if l.CPUQuota < 0 {
		return infinity
	}
	return roundUp(uint64(l.CPUQuota)*second/l.Period(), quotaStep)
}

func roundUp(n, step uint64) uint64 { return (n + step - 1) / step * step }

// Rounded are the limits as systemd will have them: a slice must not be given less by file than its scopes
// are given by systemd.
func Rounded(l cgroup.Limits) cgroup.Limits {
	if l.CPUQuota > 0 {
		l.CPUQuota = int64(quotaPerSecond(l) * l.Period() / second)
	}
	return l
}

// sliceProperties are those that any slice of ours is started with. All is accounted from the start, or
// systemd would leave controllers out and move processes when a limit comes later.
func sliceProperties(name string) []systemd1.Property {
	properties := []Property{
		{"Description", "Kubernetes pods " + name},
		{"CollectMode", "inactive-or-failed"},
		{"DefaultDependencies", false}, // pods are not to be stopped before the node's other services are
		{"CPUAccounting", true},
		{"MemoryAccounting", true},
		{"TasksAccounting", true},
		{"IOAccounting", true},
	}

	base := strings.TrimSuffix(name, systemd.SliceSuffix)
	if dash := strings.LastIndexByte(base, '-'); dash > 0 {
		properties = append(properties, Property{"Wants", []string{base[:dash] + systemd.SliceSuffix}})
	}

	return values(properties)
}

func values(properties []Property) []systemd1.Property {
	out := make([]systemd1.Property, 0, len(properties))
	for _, p := range properties {
		out = append(out, systemd1.Property{Name: p.Name, Value: dbus.MakeVariant(p.Value)})
	}
	return out
}
