// Command trivet-release writes the files of a version: programs, images, Debian packages, lists of what is
// in them, sums, and one archive with all of it.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/trivet-node/trivet/internal/program"
	"github.com/trivet-node/trivet/release/distribution"
)

const about = `trivet-release writes the files of a version from programs that are built (make dist):
programs, OCI images, Debian packages, an SBOM of each part, sums, and one archive with all of it.

The environment has SOURCE_DATE_EPOCH, the time of the commit in seconds: equal inputs give equal files.`

func main() { program.Tool("trivet-release", run) }

func run(ctx context.Context, env *program.Env) error {
	cfg := distribution.Config{
		Say: func(format string, args ...any) { fmt.Fprintf(env.Stdout, format+"\n", args...) },
	}
	fs := env.Flags(about)
	fs.StringVar(&cfg.Version, "version-name", "", "version, such as v1.2.3")
	fs.StringVar(&cfg.Revision, "revision", "", "commit")
	fs.StringVar(&cfg.Source, "source", ".", "root of the repository")
	fs.StringVar(&cfg.Programs, "programs", "", "directory with the programs in ARCHITECTURE/NAME")
	fs.StringVar(&cfg.Cache, "cache", "", "directory that keeps Debian's packages")
	out := fs.String("out", "dist", "directory to replace with the files")
	if err := env.Parse(fs); err != nil {
		return err
	}

	var err error
	if cfg.Time, err = sourceDate(os.Getenv("SOURCE_DATE_EPOCH")); err != nil {
		return &program.UsageError{Err: err}
	}

	for _, path := range []*string{&cfg.Source, &cfg.Programs, &cfg.Cache, out} {
		if *path == "" {
			return &program.UsageError{Err: errors.New("--programs and --cache are wanted")}
		}
		if *path, err = filepath.Abs(*path); err != nil {
			return err
		}
	}

	return distribution.Write(ctx, cfg, *out)
}

// sourceDate reads the time of the sources (reproducible-builds.org, SOURCE_DATE_EPOCH).
func sourceDate(text string) (time.Time, error) {
	seconds, err := strconv.ParseInt(text, 10, 64)
	if err != nil || seconds <= 0 {
		return time.Time{}, fmt.Errorf("SOURCE_DATE_EPOCH is %q, not the time of the commit in seconds", text)
	}
	return time.Unix(seconds, 0), nil
}
