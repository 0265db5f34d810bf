package hostnat

import (
	"fmt"

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
	for _, c := range t.want.chains() {
		if err := t.kernel.Compare(c.expected()); err != nil {
			return err
		}
	}

	return t.checkNoMasq()
}

// expected returns the chain as package nft compares it.
func (c chain) expected() nft.Chain {
	e := nft.Chain{
		Name:     c.name,
		Hook:     c.hook,
		Priority: c.priority,
	}
	for _, r := range c.rules {
		e.Rules = append(e.Rules, r)
	}
	return e
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

		// An interval may end where another one begins.
		type boundary struct {
			key   string
			isEnd bool
		}
		there := map[boundary]bool{}
		for _, e := range have {
			there[boundary{string(e.Key), e.IntervalEnd}] = true
		}

		// Elements that somebody has added take nothing from pods, and stay.
		for _, e := range f.intervals(t.want.notMasqueraded(f)) {
			if !there[boundary{string(e.Key), e.IntervalEnd}] {
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
