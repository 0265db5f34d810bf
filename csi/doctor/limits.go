package doctor

import (
	"fmt"

	"github.com/trivet-node/trivet/csi/volume"
)

// limits compares the limits that records have with those that are in force.
func (d *diagnosis) limits() {
	before, limited := len(d.found), 0
	for _, id := range sorted(d.Staged) {
		r, known := d.Records[id]
		if !known || r.Limits == (volume.Limits{}) {
			continue
		}

		limited++
		switch {
		case d.Kernel.IOLimits == "" || d.Survey.Limits.Err != nil:
			d.wrong("volume "+id, "let the driver see /sys/fs/cgroup of the machine",
				"its limits of input and output cannot be in force: %v", d.whyUnlimited())
		case d.Staged[id].Limited == 0:
			d.wrong("volume "+id, d.enforcer(), "its limits of input and output are not in force")
		}
	}

	for _, id := range sorted(d.Survey.Limits.Differing) {
		groups := d.Survey.Limits.Differing[id]
		where := groups[0]
		if more := len(groups) - 1; more > 0 {
			where += fmt.Sprintf(" and %d more control groups", more)
		}

		_, staged := d.Staged[id]
		if r := d.Records[id]; staged && r.Limits != (volume.Limits{}) {
			if d.Staged[id].Limited != 0 {
				d.wrong("volume "+id, d.enforcer(), "its limits of input and output are not in force for %s", where)
			}
			continue
		}
		d.wrong("volume "+id, d.enforcer(), "limits of input and output that it does not have are in force for %s",
			where)
	}

	if len(d.found) == before && limited > 0 {
		d.ok("limits", "those of input and output of %d volumes in use are in force", limited)
	}
}

// enforcer is what a person does about limits that are not as they should be.
func (d *diagnosis) enforcer() string {
	if d.Driver.Runs {
		return "look at the driver's log, or restart it"
	}
	return "start the driver"
}

// whyUnlimited is why nothing is limited on the node.
func (d *diagnosis) whyUnlimited() error {
	if err := d.Survey.Limits.Err; err != nil {
		return err
	}
	return fmt.Errorf("no control groups with a controller of I/O")
}
