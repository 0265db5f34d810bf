// Command trivet-vm keeps the results of tests that ran in virtual machines (make vm), and writes the tables
// of docs/cgroup-v2.md from them.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/trivet-node/trivet/e2e/vm"
	"github.com/trivet-node/trivet/internal/durable"
	"github.com/trivet-node/trivet/internal/program"
)

const about = `trivet-vm keeps the results of tests that ran in virtual machines with Debian's kernels.

  trivet-vm --debian=12 --shard=kernel DIR   show what a virtual machine has handed back in DIR; with
                                             --keep keep it, and write the page from all that is kept
  trivet-vm page                             write the page from what is kept

It ends with an error if a test has failed.`

func main() { program.Tool("trivet-vm", do) }

func do(_ context.Context, env *program.Env) error {
	flags := env.Flags(about)
	s := vm.Subject{Date: time.Now().UTC().Format(time.DateOnly)}
	flags.StringVar(&s.Debian, "debian", "", "version of Debian whose kernel it was")
	flags.StringVar(&s.Shard, "shard", "", "part of the tests that ran")
	keep := flags.Bool("keep", false, "keep the results, in the place of those of an earlier run")
	data := flags.String("data", "docs/data/vm", "directory in which results are kept")
	page := flags.String("page", "docs/cgroup-v2.md", "document with the tables")
	if err := env.Parse(flags); err != nil {
		return err
	}

	args := flags.Args()
	switch {
	case len(args) == 1 && args[0] == "page":
		return writePage(*page, *data)
	case len(args) != 1 || s.Debian == "" || s.Shard == "":
		err := errors.New("one directory, --debian and --shard are needed, see trivet-vm --help")
		return &program.UsageError{Err: err}
	}

	run, err := vm.Collect(args[0], s)
	if err != nil {
		return err
	}

	failed := run.Failures()
	fmt.Fprintf(env.Stdout, "Debian %s, %s: %d results, %d failed\n",
		s.Debian, s.Shard, len(run.Results), len(failed))
	for _, f := range failed {
		fmt.Fprintf(env.Stdout, "failed: %s %s: %s\n", f.Program, f.Test, f.Message)
	}

	if *keep {
		if err := vm.Write(*data, run); err != nil {
			return err
		}
		if err := writePage(*page, *data); err != nil {
			return err
		}
	}

	if len(failed) > 0 {
		return fmt.Errorf("%d of %d results are failures", len(failed), len(run.Results))
	}

	return nil
}

// writePage writes the tables of the page.
func writePage(page, data string) error {
	runs, err := vm.Load(data)
	if err != nil {
		return err
	}

	text, err := os.ReadFile(page)
	if err != nil {
		return err
	}

	changed, err := vm.Rewrite(string(text), runs)
	if err != nil {
		return fmt.Errorf("%s: %w", page, err)
	}

	return durable.WriteFile(page, []byte(changed), 0o644)
}
