package hostnat

import (
	"fmt"
	"maps"
	"slices"

	"github.com/trivet-node/trivet/cni/nft"
)

// Check returns an error that names the first difference between the table and the configuration. Unlike
// Ensure it looks into every chain: the rules of one may have been flushed.
func (t *Table) Check() error {
	upToDate, err := t.hasMarker()
	if err != nil {
		return err
	}

	if !upToDate {
		return fmt.Errorf("nftables table %s does not have the rules of this configuration",
			t.want.table.Name)
	}

	// The marker alone does not say that every chain still has its rules.
	have, err := t.kernel.CountRules()
	if err != nil {
		return err
	}

	want := countExpected(t.want.chains())
	for _, name := range slices.Sorted(maps.Keys(want)) {
		if have[name] != want[name] {
			return fmt.Errorf(
				"chain %s of nftables table %s has %d rules, not %d",
				name,
				t.want.table.Name,
				have[name],
				want[name],
			)
		}
	}

	return t.checkNoMasq()
}

// checkNoMasq compares the destinations that see the pods' own addresses.
func (t *Table) checkNoMasq() error {
	if !t.want.config.Masquerade {
		return nil
	}

	for _, f := range t.want.families {
		have, err := t.kernel.Elements(f.noMasq)
		if err != nil {
			return err
		}

		keys := map[string]bool{}
		for _, e := range have {
			keys[string(e.Key)] = true
		}

		// Elements that somebody has added take nothing from pods, and stay.
		for _, e := range f.intervals(t.want.notMasqueraded(f)) {
			if !keys[string(e.Key)] {
				return fmt.Errorf("set %s of nftables table %s is not as configured",
					f.noMasq.Name, t.want.table.Name)
			}
		}
	}

	return nil
}

// repairTries is small: what is still wrong then, somebody keeps undoing.
const repairTries = 4

// Repair is Ensure for a caller that is not about to add a pod: it also writes the rules again when only some
// of them are missing. It reports whether there was something to do.
func (t *Table) Repair() (repaired bool, err error) {
	for range repairTries {
		if err = t.Check(); err == nil {
			return repaired, nil
		}

		// After a race the other process, an ADD, has done it.
		failure := t.replace()
		if failure != nil && !nft.IsRace(failure) {
			return repaired, failure
		}

		repaired = failure == nil
	}

	return repaired, fmt.Errorf("rules were written and are still wrong: %w", err)
}
