// Command trivet-seats tries mixes of trivet's programs and others' in the seats of a node.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/trivet-node/trivet/e2e/cluster/seat"
	"github.com/trivet-node/trivet/e2e/seats"
	"github.com/trivet-node/trivet/e2e/specs/subject"
	"github.com/trivet-node/trivet/internal/lockfile"
	"github.com/trivet-node/trivet/internal/program"
)

const about = `trivet-seats brings up a cluster of one node for each chosen mix of programs in its seats,
measures pods, runs scenarios and the demo on it, and takes it down again. It ends with an error unless
everything passed in every one.

  trivet-seats [flags]     try the mixes
  trivet-seats page        write docs/seats.md from the results in --data`

func main() { program.Tool("trivet-seats", do) }

// pageFile is what the results are shown on.
const pageFile = "docs/seats.md"

func do(ctx context.Context, env *program.Env) error {
	onlyPage := len(env.Args) > 0 && env.Args[0] == "page"
	if onlyPage {
		env.Args = env.Args[1:]
	}

	run := seats.Run{Out: env.Stdout}
	fs := env.Flags(about)
	fs.StringVar(&run.Dir, "dir", ".trivet/seats", "state directory of the clusters, and of the logs")
	fs.IntVar(&run.Pods, "pods", 15, "how many pods are measured")
	fs.BoolVar(&run.Metrics, "metrics-server", false, "install metrics-server before the demo")
	data := fs.String("data", "", "file of results to keep what came out in")
	wanted := fs.String("cells", "all", "all, rotating (the one of this commit), or the programs that a mix "+
		"must have, such as kubelet,upstream")
	if err := env.Parse(fs); err != nil {
		return err
	}
	if onlyPage {
		return writePage(*data)
	}

	cells, err := seats.Choose(*wanted, subject.Commit(ctx, "."))
	if err != nil {
		return &program.UsageError{Err: err}
	}
	if err := prepare(ctx, &run); err != nil {
		return err
	}

	return try(ctx, run, cells, *data)
}

// prepare makes paths absolute, and the directory this process's own.
func prepare(ctx context.Context, run *seats.Run) (err error) {
	if err := program.RequireRoot(); err != nil {
		return err
	}
	if run.Root, err = os.Getwd(); err != nil {
		return err
	}
	if run.Dir, err = filepath.Abs(run.Dir); err != nil {
		return err
	}
	if err := os.MkdirAll(run.Dir, 0o755); err != nil {
		return err
	}
	return lockfile.Hold(ctx, run.Dir+".lock", "state directory "+run.Dir+" (--dir)")
}

// try tries the cells one after the other, and keeps their results in the file data, if it has a name. One
// that fails does not keep the others from being tried; the end of ctx does.
func try(ctx context.Context, run seats.Run, cells []seat.Seats, data string) error {
	var errs []error
	for i, cell := range cells {
		began := time.Now()
		fmt.Fprintf(run.Out, "== %d of %d: %s\n", i+1, len(cells), seats.Name(cell))
		result, err := run.Cell(ctx, cell)
		if err != nil {
			return errors.Join(append(errs, err)...)
		}

		errs = append(errs, result.Err())
		fmt.Fprintf(run.Out, "== %s: %d scenarios passed, %d failed, after %v\n", result.Cell,
			len(result.Passed), len(result.Failed), time.Since(began).Round(time.Second))
		if data != "" {
			errs = append(errs, seats.Keep(data, result), writePage(data))
		}
	}

	return errors.Join(errs...)
}

func writePage(data string) error {
	all, err := seats.Read(data)
	if err != nil {
		return err
	}
	return os.WriteFile(pageFile, []byte(seats.Page(all)), 0o644)
}
