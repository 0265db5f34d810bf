package unit

import (
	"math"
	"strings"

	systemd1 "github.com/coreos/go-systemd/v22/dbus"
	"github.com/godbus/dbus/v5"

	"github.com/trivet-node/trivet/internal/cgroup"
	"github.com/trivet-node/trivet/internal/systemd"
)

// Property is a property of a unit (org.freedesktop.systemd1(5)).
type Property struct {
	Name  string
	Value any
}

const (
	infinity = math.MaxUint64
	second   = 1_000_000 // microseconds
	// quotaStep is what systemd rounds quotas up to: one percent of a CPU.
	quotaStep = second / 100
)

// Properties returns the properties that mean the same as the limits, on cgroup v1 or v2.
func Properties(l cgroup.Limits, v2 bool) []Property {
	var out []Property
	add := func(name string, value any) { out = append(out, Property{name, value}) }

	if l.CPUShares != 0 && v2 {
		add("CPUWeight", cgroup.Weight(l.CPUShares))
	}
	if l.CPUShares != 0 && !v2 {
		add("CPUShares", l.CPUShares)
	}
	if l.CPUQuota != 0 {
		add("CPUQuotaPerSecUSec", quotaPerSecond(l))
	}

	// Versions before 242 do not know this one.
	if l.CPUQuota != 0 && l.Period() != cgroup.DefaultPeriod {
		add("CPUQuotaPeriodUSec", l.Period())
	}
	if l.Memory != 0 && v2 {
		add("MemoryMax", orInfinity(l.Memory))
	}
	if l.MemoryMin != nil && v2 {
		add("MemoryMin", orInfinity(*l.MemoryMin))
	}
	if l.MemoryLow != nil && v2 {
		add("MemoryLow", orInfinity(*l.MemoryLow))
	}
	if l.MemoryHigh != 0 && v2 {
		add("MemoryHigh", orInfinity(l.MemoryHigh))
	}
	if l.Memory != 0 && !v2 {
		add("MemoryLimit", orInfinity(l.Memory))
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

// Rounded returns the limits as systemd will have them: what is written to a slice's file must not be less
// than what systemd gives to the scopes in it.
func Rounded(l cgroup.Limits) cgroup.Limits {
	if l.CPUQuota > 0 {
		l.CPUQuota = int64(quotaPerSecond(l) * l.Period() / second)
	}
	return l
}

// sliceProperties returns those that every slice is started with. Accounting is on from the start: otherwise
// systemd would leave controllers out, and move processes when a limit is set later.
func sliceProperties(name string) []systemd1.Property {
	properties := []Property{
		{"Description", "Kubernetes pods " + name},
		{"CollectMode", "inactive-or-failed"},
		// Pods must not be stopped before the node's services are.
		{"DefaultDependencies", false},
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
