// Package specs knows the specs of the published end-to-end suite of Kubernetes (e2e.test) by their names:
// the sets that are run, how a set is divided between machines, and which of them CI runs.
package specs

import (
	_ "embed"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/trivet-node/trivet/e2e/specs/external"
)

var (
	//go:embed smoke.txt
	smoke string

	//go:embed conformance.txt
	conformance string
)

// Smoke are the names of the smoke set.
func Smoke() []string { return Parse(smoke) }

// Conformance are the names of all specs with [Conformance] or [NodeConformance], as they were when
// conformance.txt was written for a version of the suite.
func Conformance() (version string, names []string) {
	first, _, _ := strings.Cut(conformance, "\n")
	return strings.TrimPrefix(first, conformanceHead), Parse(conformance)
}

// conformanceHead begins conformance.txt, before the version.
const conformanceHead = "# The specs of e2e.test with [Conformance] or [NodeConformance], written by make " +
	"conformance-names for "

// FormatConformance returns the text of conformance.txt for a version of the suite with all these specs.
func FormatConformance(version string, all []string) string {
	names := slices.DeleteFunc(slices.Clone(all), func(n string) bool { return !IsConformance(n) })
	slices.Sort(names)
	return conformanceHead + version + "\n" + strings.Join(names, "\n") + "\n"
}

// Parse reads one spec name a line; empty lines and lines that start with # are skipped.
func Parse(text string) []string {
	var names []string
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line != "" && !strings.HasPrefix(line, "#") {
			names = append(names, line)
		}
	}
	return names
}

// IsConformance reports whether a spec has [Conformance] or [NodeConformance] in its name.
func IsConformance(name string) bool {
	return strings.Contains(name, "[Conformance]") || strings.Contains(name, "[NodeConformance]")
}

// IsSerial reports whether ginkgo runs a spec after those that run in parallel, alone.
func IsSerial(name string) bool { return strings.Contains(name, "[Serial]") }

// IsDisruptive reports whether a spec does what disturbs others that run at the same time. Most of them are
// [Serial], too.
func IsDisruptive(name string) bool { return strings.Contains(name, "[Disruptive]") }

// isGated reports whether a spec is for a feature that a cluster may not have.
func isGated(name string) bool {
	return strings.Contains(name, "[Feature:") || strings.Contains(name, "[FeatureGate:")
}

// needsNFS reports whether a spec starts a server of NFS.
func needsNFS(name string) bool {
	return strings.Contains(name, "[Driver: nfs") || strings.Contains(name, "PersistentVolumes NFS")
}

// SIG is the group that a spec belongs to, such as "sig-node"; "" if its name does not say so.
func SIG(name string) string {
	sig, _, found := strings.Cut(strings.TrimPrefix(name, "["), "]")
	if !found || !strings.HasPrefix(name, "[sig-") {
		return ""
	}
	return sig
}

// Sets are the names of the sets, but a file.
var Sets = []string{"conformance", "node", "storage", "external", "network", "policy", "smoke", "all"}

// Select returns the names of a set, or those in a file with one name a line, in the order of all, the specs
// of the suite. The sets node, storage and network are the specs of that SIG outside of the conformance set
// that do not depend on a feature, nor on a server of NFS: each of these would wait for minutes for an image
// that cannot be made. The set external are those of trivet-csi, which package external defines for the
// suite. The set policy is those of NetworkPolicy, but for three that need SCTP in the kernel.
func Select(all []string, set string) ([]string, error) {
	switch set {
	case "all":
		return all, nil
	case "smoke":
		return named(all, "the smoke set", Smoke())
	case "conformance":
		return choose(all, IsConformance), nil
	case "external":
		return choose(all, external.Has), nil
	case "policy":
		return choose(all, isPolicy), nil
	case "node", "storage", "network":
		return choose(all, func(n string) bool {
			return SIG(n) == "sig-"+set && !IsConformance(n) && !isGated(n) && !needsNFS(n)
		}), nil
	}

	text, err := os.ReadFile(set)
	if err != nil {
		return nil, fmt.Errorf("%q is neither a set (%s) nor a file with names of specs: %w",
			set, strings.Join(Sets, ", "), err)
	}

	return named(all, set, Parse(string(text)))
}

// isPolicy reports whether a spec is one of NetworkPolicy.
func isPolicy(name string) bool {
	return strings.Contains(name, "[Feature:NetworkPolicy]") &&
		!strings.Contains(name, "[Feature:SCTPConnectivity]")
}

// choose returns the names that are wanted.
func choose(all []string, wanted func(string) bool) []string {
	return slices.DeleteFunc(slices.Clone(all), func(n string) bool { return !wanted(n) })
}

// named returns those of all that are listed. The list is of another version of the suite, or wrong, if it
// has one that the suite does not have.
func named(all []string, where string, listed []string) ([]string, error) {
	left := map[string]bool{}
	for _, n := range listed {
		left[n] = true
	}

	found := choose(all, func(n string) bool { return left[n] })
	for _, n := range found {
		delete(left, n)
	}

	for _, n := range listed {
		if left[n] {
			return nil, fmt.Errorf("%s: the suite has no spec %q (%d names that it does not have)",
				where, n, len(left))
		}
	}

	if len(found) == 0 {
		return nil, fmt.Errorf("%s names no specs", where)
	}

	return found, nil
}
