package hostnat

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"
)

// Check tells which rules of the network are not there. Unlike Ensure it looks into every chain: rules of one
// may have been flushed.
func (t *Table) Check() error {
	ok, err := t.fits()
	if err != nil {
		return err
	}
	if !ok {
		return fmt.Errorf("nftables table %s has not the rules of this configuration", t.table.Name)
	}

	want, err := t.expected()
	if err != nil {
		return err
	}

	have, err := t.chains()
	if err != nil {
		return err
	}

	for _, name := range slices.Sorted(maps.Keys(want)) {
		if have[name] != want[name] {
			return fmt.Errorf("chain %s of nftables table %s has %d rules, not %d", name, t.table.Name,
				have[name], want[name])
		}
	}

	return t.checkNoMasq()
}

// expected counts the rules of each chain, by putting together a transaction that is not sent. A jump counts
// for its target.
func (t *Table) expected() (map[string]int, error) {
	scratch := &Table{
		conn:   &nftables.Conn{},
		table:  t.table,
		config: t.config,
		byFam:  t.byFam,
		rules:  map[string]int{},
	}

	err := scratch.build()
	if scratch.config.Ports {
		scratch.rules[portChain] += len(portHooks)
	}

	return scratch.rules, err
}

// chains counts the rules of each chain that is there.
func (t *Table) chains() (map[string]int, error) {
	have := map[string]int{}
	err := t.kernel.Dump(t.question("list nftables chains of "+t.table.Name, unix.NFT_MSG_GETCHAIN),
		func(_ uint16, body []byte) {
			if table := tableOf(body); table == t.table.Name {
				name, rules := parseChain(body)
				have[name] = rules
			}
		})
	return have, err
}

// checkNoMasq compares the destinations that see the pods' own addresses.
func (t *Table) checkNoMasq() error {
	if !t.config.Masquerade {
		return nil
	}

	for _, f := range t.byFam {
		have, err := t.elements(f.noMasq)
		if err != nil {
			return err
		}

		keys := map[string]bool{}
		for _, e := range have {
			keys[string(e.Key)] = true
		}

		for _, e := range f.intervals(t.own(f)) {
			if !keys[string(e.Key)] {
				return fmt.Errorf("set %s of nftables table %s is not as configured", f.noMasq.Name,
					t.table.Name)
			}
		}
	}

	return nil
}

// repairTries is small: what is still wrong then, somebody keeps undoing.
const repairTries = 4

// Repair is Ensure for somebody who is not about to add a pod: rules that are missing in part are written
// again, too. It reports whether there was something to do.
func (t *Table) Repair() (repaired bool, err error) {
	for range repairTries {
		if err = t.Check(); err == nil {
			return repaired, nil
		}

		wrong := t.replace()
		if wrong != nil && !errors.Is(wrong, unix.EEXIST) && !errors.Is(wrong, unix.ENOENT) {
			return repaired, wrong
		}

		// else an ADD was quicker
		repaired = wrong == nil
	}

	return repaired, fmt.Errorf("written again and not as it has to be: %w", err)
}
