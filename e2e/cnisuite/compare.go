package cnisuite

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync"
)

// Comparison has each network of the corpus made by both programs, each on a host of its own.
type Comparison struct {
	// Theirs and Ours are the directories of the two programs, each with the names of the plugins.
	Theirs, Ours string
	// Work is a directory for what the plugins write.
	Work string
}

// Outcome is what became of one network.
type Outcome struct {
	Network string
	// Skipped says what the kernel lacks.
	Skipped string
	Err     error
	// Left are the lines of what is left, or of what is different and not by design.
	Left []string
	// ByDesign are differences that the table of these has.
	ByDesign []string
}

// Run compares what the programs make of each network: results, links, addresses, routes, rules, and where
// packets come through.
func (c Comparison) Run(ctx context.Context) []Outcome {
	return each(corpus, atOnce, func(n network, dir string, o *Outcome) error {
		return c.compare(ctx, n, dir, o)
	})
}

// atOnce is how many networks are compared at once: most of the time is waiting.
const atOnce = 3

// each calls f with the networks that the kernel can make, some of them at once, each with the name of a
// directory of its own.
func each(networks []network, atOnce int, f func(n network, dir string, o *Outcome) error) []Outcome {
	all := make([]Outcome, len(networks))
	turns := make(chan struct{}, atOnce)
	var group sync.WaitGroup
	for i, n := range networks {
		group.Go(func() {
			turns <- struct{}{}
			defer func() { <-turns }()

			o := &all[i]
			*o = Outcome{Network: n.name, Skipped: n.lacks()}
			if o.Skipped == "" {
				o.Err = f(n, fmt.Sprint("network-", i), o)
			}
		})
	}

	group.Wait()
	return all
}

func (c Comparison) compare(ctx context.Context, n network, dir string, o *Outcome) error {
	var states [2]state
	var errs [2]error
	var group sync.WaitGroup
	for i, plugins := range []string{c.Theirs, c.Ours} {
		group.Go(func() {
			if states[i], errs[i] = c.make(ctx, n, plugins, fmt.Sprint(dir, "-", i)); errs[i] != nil {
				errs[i] = fmt.Errorf("by %s: %w", plugins, errs[i])
			}
		})
	}

	group.Wait()
	if err := errors.Join(errs[:]...); err != nil {
		return err
	}

	for _, d := range difference(states[0], states[1]) {
		if reason := d.reason(n); reason != "" {
			o.ByDesign = append(o.ByDesign, d.String())
		} else {
			o.Left = append(o.Left, d.String())
		}
	}

	return nil
}

// make has one program add the container, and returns what there is then. The container is deleted again.
func (c Comparison) make(ctx context.Context, n network, plugins, dir string) (s state, err error) {
	h, err := newHost(n, filepath.Join(c.Work, dir))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, h.close()) }()

	cni := h.plugins(plugins)
	var result string
	err = inside(h.netns, func() error {
		if result, err = h.add(ctx, cni); err != nil {
			return err
		}
		return h.check(ctx, n, cni)
	})
	if err != nil {
		return nil, err
	}

	// Before the state: the first packets make what there is of neighbours.
	reached, err := h.reach(n)
	if err != nil {
		return nil, err
	}
	if s, err = h.look(); err != nil {
		return nil, err
	}

	s.add("result", "cni", result)
	s.add("reachability", "dial", strings.Join(reached, "\n"))
	return s, inside(h.netns, func() error { return cni.DelNetworkList(ctx, h.list, h.runtime) })
}

// Difference is a line that only one of the programs has made.
type Difference struct {
	section, line string
	isOurs        bool
}

func (d Difference) String() string {
	who := "upstream only"
	if d.isOurs {
		who = "ours only"
	}
	return fmt.Sprintf("%s, %s: %s", d.section, who, d.line)
}

// difference returns the lines of either state that the other one does not have as often.
func difference(theirs, ours state) (all []Difference) {
	sections := maps.Clone(theirs)
	maps.Copy(sections, ours)
	for _, section := range slices.Sorted(maps.Keys(sections)) {
		for _, line := range without(theirs[section], ours[section]) {
			all = append(all, Difference{section: section, line: line})
		}
		for _, line := range without(ours[section], theirs[section]) {
			all = append(all, Difference{section: section, line: line, isOurs: true})
		}
	}
	return all
}

// without returns lines that are not among others, each as often as it is there more.
func without(lines, others []string) (rest []string) {
	count := map[string]int{}
	for _, line := range others {
		count[line]++
	}
	for _, line := range lines {
		if count[line]--; count[line] < 0 {
			rest = append(rest, line)
		}
	}
	return rest
}
