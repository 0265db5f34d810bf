package leaks

import (
	"strings"
)

// UnitProperties are the properties of units that ParseUnitStates reads.
const UnitProperties = "Id,ActiveState,SubState,Result"

// ParseUnitStates reads what "systemctl show --property=UnitProperties" prints of units: NAME=VALUE lines,
// and a blank line between two units. It returns the state of each unit by its name: "failed, failed,
// timeout".
func ParseUnitStates(shown string) map[string]string {
	states := map[string]string{}
	for unit := range strings.SplitSeq(shown, "\n\n") {
		properties := map[string]string{}
		for line := range strings.Lines(unit) {
			name, value, _ := strings.Cut(strings.TrimSpace(line), "=")
			properties[name] = value
		}

		state := []string{properties["ActiveState"], properties["SubState"]}
		if result := properties["Result"]; result != "" {
			// A slice has none.
			state = append(state, result)
		}

		states[properties["Id"]] = strings.Join(state, ", ")
	}

	return states
}

// nodeUnits lists the slices of pods and the scopes of their containers, where systemd is the cgroup driver.
func nodeUnits(v View) ([]Leak, error) {
	names, err := entries(v.root("/run/systemd/transient"))
	if err != nil {
		return nil, err
	}

	left := v.foreignUnits(names)
	if len(left) == 0 {
		return nil, nil
	}

	var states map[string]string
	if v.UnitStates != nil {
		states = v.UnitStates(left)
	}

	out := make([]Leak, len(left))
	for i, n := range left {
		what := n
		if state := states[n]; state != "" {
			what += " (" + state + ")"
		}

		out[i] = Leak{"unit", what}
	}

	return out, nil
}

// foreignUnits are those of pods that are gone. The name of a scope does not say whose container is in it, so
// it counts only when no pod is left.
func (v View) foreignUnits(names []string) []string {
	var out []string
	for _, n := range names {
		isScope := strings.HasSuffix(n, ".scope")
		if v.foreign(n) != "" || isScope && len(v.Live) == 0 {
			out = append(out, n)
		}
	}
	return out
}
