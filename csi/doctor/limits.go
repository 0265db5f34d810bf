package doctor

import (
	"errors"
	"fmt"

	"github.com/trivet-node/trivet/csi/volume"
)

// limits compares the limits of input and output that records have with those that are in force.
func (d *diagnosis) limits() {
	before, limited := len(d.found), 0
	for _, id := range sorted(d.Staged) {
		r, known := d.Records[id]
		if !known || r.Limits == (volume.Limits{}) {
			continue
		}

		limited++
		differing := d.Survey.Limits.Differing[id]
		switch err := whyUnlimited(d.Facts); {
		case err != nil:
			d.wrong("volume "+id, "let the driver see /sys/fs/cgroup of the machine",
				"its limits of input and output cannot be in force: %v", err)
		case d.Staged[id].Limited == 0:
			d.wrong("volume "+id, enforcer(d.Driver), "its limits of input and output are not in force")
		case len(differing) > 0:
			d.wrong("volume "+id, enforcer(d.Driver),
				"its limits of input and output are not in force for %s", several(differing))
		}
	}

	for _, id := range sorted(d.Survey.Limits.Differing) {
		if _, staged := d.Staged[id]; staged && d.Records[id].Limits != (volume.Limits{}) {
			continue
		}
		d.wrong("volume "+id, enforcer(d.Driver), "limits of input and output that it does not have are in"+
			" force for %s", several(d.Survey.Limits.Differing[id]))
	}

	if len(d.found) == before && limited > 0 {
		d.ok("limits", "those of input and output of %d volumes in use are in force", limited)
	}
}

// several names control groups.
func several(groups []string) string {
	if more := len(groups) - 1; more > 0 {
		return fmt.Sprintf("%s and %d more control groups", groups[0], more)
	}
	return groups[0]
}

// enforcer is what a person does about limits that are not as they should be.
func enforcer(driver Driver) string {
	if driver.Runs {
		return "look at the driver's log, or restart it"
	}
	return "start the driver"
}

// whyUnlimited is why nothing can be limited on the node; nil if it can.
func whyUnlimited(f Facts) error {
	if f.Kernel.IOLimits == "" {
		return errors.New("no control groups with a controller of I/O")
	}
	return f.Survey.Limits.Err
}
