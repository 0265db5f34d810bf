// Package patience lets what waits on a slow machine wait longer.
package patience

import (
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Of returns how long something may take on this machine that takes at most limit on one of its own: as many
// times longer as TRIVET_PATIENCE says, which machines that are emulated need.
func Of(limit time.Duration) time.Duration { return limit * factor() }

// OfArgs returns arguments of kubectl whose --timeout=D is longer by that much.
func OfArgs(args []string) []string {
	args = slices.Clone(args)
	for i, arg := range args {
		text, found := strings.CutPrefix(arg, "--timeout=")
		if limit, err := time.ParseDuration(text); found && err == nil && Of(limit) != limit {
			args[i] = "--timeout=" + Of(limit).String()
		}
	}
	return args
}

// maxFactor bounds what the environment asks for.
const maxFactor = 1000

var factor = sync.OnceValue(func() time.Duration {
	n, err := strconv.Atoi(os.Getenv("TRIVET_PATIENCE"))
	if err != nil || n < 1 || n > maxFactor {
		return 1
	}
	return time.Duration(n)
})
