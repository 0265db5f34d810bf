// Package page writes docs/conformance.md and docs/conformance-outside.md from the results of runs that are
// committed as data, the names of the conformance set, and the exceptions.
package page

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"github.com/trivet-node/trivet/e2e/specs"
	"github.com/trivet-node/trivet/e2e/specs/exceptions"
	"github.com/trivet-node/trivet/e2e/specs/results"
)

// Run is a run whose results are committed. The zero value is a run that was not made.
type Run struct {
	results.Subject
	results.Set
}

// Data is what the pages are made of.
type Data struct {
	// Version is that of the suite, Names its conformance set.
	Version string
	Names   []string

	// Ours and Kubelet's are the last runs of that set.
	Ours, Kubelets Run

	// Outside are runs of other sets, by the names of these.
	Outside map[string]Run

	Exceptions exceptions.Exceptions
}

// outside are the sets of specs that are not in the conformance set.
var outside = []string{"network", "policy", "storage", "external", "node"}

// Load reads the data in a directory: conformance-trivet.jsonl, conformance-kubelet.jsonl, and
// SET-trivet.jsonl of other sets. A file that is not there is a run that was not made.
func Load(dir string) (Data, error) {
	d := Data{Outside: map[string]Run{}}
	d.Version, d.Names = specs.Conformance()

	var errs [4]error
	d.Exceptions, errs[0] = exceptions.Committed()
	d.Ours, errs[1] = load(dir, "conformance-trivet")
	d.Kubelets, errs[2] = load(dir, "conformance-kubelet")
	for _, set := range outside {
		run, err := load(dir, set+"-trivet")
		errs[3] = errors.Join(errs[3], err)
		if run.Set != nil {
			d.Outside[set] = run
		}
	}

	return d, errors.Join(errs[:]...)
}

func load(dir, name string) (Run, error) {
	subject, set, err := results.Read(filepath.Join(dir, name+".jsonl"))
	if errors.Is(err, fs.ErrNotExist) {
		return Run{}, nil
	}
	return Run{Subject: subject, Set: set}, err
}

// Check returns what is wrong with the data: specs of the set without a result in a run that was made,
// results of specs that the set does not have, and exceptions that are none, because their spec passes here
// or with kubelet.
func (d Data) Check() error {
	inSet := map[string]bool{}
	for _, n := range d.Names {
		inSet[n] = true
	}

	var errs []error
	for _, run := range []Run{d.Ours, d.Kubelets} {
		if run.Set != nil {
			errs = append(errs, d.checkRun(run, inSet))
		}
	}

	for n, reason := range d.Exceptions {
		if !inSet[n] {
			errs = append(errs, fmt.Errorf("exception (%s): the suite has no spec %s", reason, n))
		}

		for _, run := range []Run{d.Ours, d.Kubelets} {
			r, ran := run.Set[n]
			if ran && (r.State() == results.Passed || r.State() == results.Flaky) {
				errs = append(
					errs,
					fmt.Errorf("exception (%s): with %s it is %s: %s", reason, run.Seats, r.State(), n),
				)
			}
		}
	}

	return errors.Join(errs...)
}

func (d Data) checkRun(run Run, inSet map[string]bool) error {
	var errs []error
	if run.Suite != d.Version {
		errs = append(
			errs,
			fmt.Errorf("the results with %s are of e2e.test %s, not %s", run.Seats, run.Suite, d.Version),
		)
	}

	missing := slices.DeleteFunc(slices.Clone(d.Names), func(n string) bool { return run.Set[n].Spec != "" })
	if len(missing) > 0 {
		errs = append(
			errs,
			fmt.Errorf("no result with %s of %d specs, such as %s", run.Seats, len(missing), missing[0]),
		)
	}

	for n := range run.Set {
		if !inSet[n] {
			errs = append(errs, fmt.Errorf("a result with %s of %s, which is not of the set", run.Seats, n))
		}
	}

	return errors.Join(errs...)
}

// state is that of a spec in a run, as the pages show it.
func (d Data) state(run Run, name string) string {
	r, ran := run.Set[name]
	switch {
	case !ran:
		return "not run"
	case r.State() == results.Failed && d.Exceptions[name] != "":
		return excepted
	}
	return string(r.State())
}

// excepted is the state of a spec that failed for a reason that is known.
const excepted = "excepted"

// cell makes text fit for a cell of a table.
func cell(text string) string {
	text = strings.Join(strings.Fields(text), " ")
	return strings.NewReplacer("|", `\|`, "<", "&lt;", ">", "&gt;", "*", `\*`, "_", `\_`).Replace(text)
}
