// Command trivet-cni-suites runs the tests of upstream's CNI plugins against trivet-cni and prints how many
// pass, or has each of the two programs delete what the other one has added.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"time"

	"github.com/trivet-node/trivet/e2e/cnisuite"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "trivet-cni-suites:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	versions := flag.String("versions", "e2e/peers/cni", "nested module with the version of upstream's")
	work := flag.String("work", ".trivet/cni-upstream", "directory for what is fetched and built")
	plugins := flag.String("plugins", "", "directory with the program under the names of the plugins")
	upstream := flag.String("swap", "",
		"directory of upstream's plugins: add by one program, delete by the other")
	other := flag.String("compare", "",
		"directory of upstream's plugins: what both make of a corpus of configurations, and chains of both")
	verbose := flag.Bool("failures", false, "print the tests that fail, and why")
	flag.Parse()

	// Suites run in directories of their own.
	r := cnisuite.Run{Versions: *versions, Timeout: 10 * time.Minute}
	var err error
	if r.Work, err = filepath.Abs(*work); err != nil {
		return err
	}
	if r.Plugins, err = filepath.Abs(*plugins); err != nil {
		return err
	}
	switch {
	case *upstream != "":
		return swap(ctx, r, *upstream)
	case *other != "":
		return compare(ctx, r, *other, *verbose)
	}
	if err := r.Prepare(ctx); err != nil {
		return err
	}

	suites := flag.Args()
	if len(suites) == 0 {
		suites = cnisuite.Suites
	}
	for _, suite := range suites {
		result, err := r.Test(ctx, suite)
		if err != nil {
			fmt.Println(suite, err)
			continue
		}

		fmt.Printf("%-26s %3d of %3d pass, %d fail by the words of an error, %d skipped\n",
			suite, result.Passed, result.Passed+result.Failed, result.Worded, result.Skipped)
		for _, f := range result.Failures {
			if *verbose {
				fmt.Printf("  %s\n    %s\n", f.Test, f.Reason)
			}
		}
	}

	return ctx.Err()
}

// swap has each of the two programs delete what the other one has added.
func swap(ctx context.Context, r cnisuite.Run, upstream string) error {
	theirs, err := filepath.Abs(upstream)
	if err != nil {
		return err
	}

	for _, s := range []cnisuite.Swap{
		{Adds: theirs, Deletes: r.Plugins, Work: r.Work},
		{Adds: r.Plugins, Deletes: theirs, Work: r.Work},
	} {
		fmt.Printf("added by %s, deleted by %s\n", s.Adds, s.Deletes)
		if err := report(s.Run(ctx), false); err != nil {
			return err
		}
	}

	return nil
}

// compare has both programs make what a corpus asks for, and chains of plugins of both work.
func compare(ctx context.Context, r cnisuite.Run, upstream string, verbose bool) error {
	theirs, err := filepath.Abs(upstream)
	if err != nil {
		return err
	}

	c := cnisuite.Comparison{Theirs: theirs, Ours: r.Plugins, Work: r.Work}
	fmt.Println("made by both")
	made := report(c.Run(ctx), verbose)
	fmt.Println("in one chain")
	return errors.Join(made, report(c.RunMixed(ctx), verbose))
}

// report prints outcomes, and returns an error if one is not as it should be.
func report(outcomes []cnisuite.Outcome, verbose bool) error {
	bad := 0
	for _, o := range outcomes {
		switch {
		case o.Skipped != "":
			fmt.Printf("  %-48s skipped: %s\n", o.Network, o.Skipped)
			continue
		case o.Err != nil || len(o.Left) > 0:
			bad++
		}

		fmt.Printf("  %-48s %d lines, %d by design, %v\n", o.Network, len(o.Left), len(o.ByDesign), o.Err)
		for _, line := range o.Left {
			fmt.Println("    " + line)
		}
		for _, line := range o.ByDesign {
			if verbose {
				fmt.Println("    by design: " + line)
			}
		}
	}

	if bad > 0 {
		return fmt.Errorf("%d of %d networks are not as they should be", bad, len(outcomes))
	}
	return nil
}
