package netd

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/trivet-node/trivet/cni/ipam"
)

// Report is what a pass found.
type Report struct {
	// At is when the pass began.
	At   time.Time
	Took time.Duration
	// Nodes and Routes count those of the cluster and those that are wanted here.
	Nodes  int
	Routes int
	// Tunnels counts the nodes that are reached through one.
	Tunnels int
	// RoutesAdded and RoutesDeleted count what the pass has changed.
	RoutesAdded   int
	RoutesDeleted int
	// TunnelsAdded and TunnelsDeleted count interfaces, addresses and entries of tunnels.
	TunnelsAdded   int
	TunnelsDeleted int
	// ConfigWritten, RulesRestored and PortsRestored say that the pass has written the network configuration,
	// nftables rules of the network, host ports.
	ConfigWritten bool
	RulesRestored bool
	PortsRestored bool
	// Pool and Ranges are where the addresses of pods are reserved, and which there are. Before there is a
	// configuration there are none.
	Pool   ipam.Location
	Ranges []ipam.Set
	// Errors are what is tried again soon.
	Errors []string
	// Notes are what only somebody else can mend, such as a node behind a router.
	Notes []string
}

// stuckAfter is the age of a report that means that the daemon hangs: a pass is made at least every recheck,
// and waits for one call of the plugin.
const stuckAfter = 3 * recheck

// Ready reports whether configuration and routes are as they should be.
func (r Report) Ready() bool { return len(r.Errors) == 0 }

// Alive reports whether passes are made.
func (r Report) Alive(now time.Time) bool { return now.Sub(r.At) < stuckAfter }

// WriteTo writes the report for a person.
func (r Report) WriteTo(w io.Writer) (int64, error) {
	var text strings.Builder
	at := r.At.UTC().Format(time.RFC3339)
	took := r.Took.Round(time.Microsecond)
	fmt.Fprintf(&text, "last sync %s, took %s: %d nodes, %d routes", at, took, r.Nodes, r.Routes)
	if r.Tunnels > 0 {
		fmt.Fprintf(&text, ", %d nodes through tunnels", r.Tunnels)
	}
	text.WriteString("\n")
	for _, e := range r.Errors {
		fmt.Fprintf(&text, "error: %s\n", e)
	}

	for _, n := range r.Notes {
		fmt.Fprintf(&text, "note: %s\n", n)
	}

	n, err := io.WriteString(w, text.String())
	return int64(n), err
}

// fail adds an error, and each part of a joined one separately; nil is none.
func (r *Report) fail(err error) {
	// Only what errors.Join made is taken apart, not what wraps it.
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		for _, e := range joined.Unwrap() {
			r.fail(e)
		}
		return
	}
	if err != nil {
		r.Errors = append(r.Errors, err.Error())
	}
}

// logChanges logs what is new in the report, and that nothing is left of what was wrong. What lasts is logged
// once.
func (d *Daemon) logChanges(r Report) {
	now := map[string]bool{}
	for _, text := range slices.Concat(r.Errors, r.Notes) {
		if !now[text] && !d.logged[text] {
			d.log.Warn("the network is not as it should be", "node", d.cfg.NodeName, "err", text)
		}

		now[text] = true
	}

	isFirst := d.logged == nil
	if len(now) == 0 && (isFirst || len(d.logged) > 0) {
		d.log.Info("the network is as it should be",
			"node", d.cfg.NodeName, "nodes", r.Nodes, "routes", r.Routes)
	}

	d.logged = now
}
