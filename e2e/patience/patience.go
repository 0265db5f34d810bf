// Package patience lets what waits on a slow machine wait longer.
package patience

import (
	"os"
	"strconv"
	"sync"
	"time"
)

// Of returns how long something may take on this machine that takes at most limit on one of its own: as many
// times longer as TRIVET_PATIENCE says, which machines that are emulated need.
func Of(limit time.Duration) time.Duration { return limit * factor() }

// maxFactor bounds what the environment asks for.
const maxFactor = 1000

var factor = sync.OnceValue(func() time.Duration {
	n, err := strconv.Atoi(os.Getenv("TRIVET_PATIENCE"))
	if err != nil || n < 1 || n > maxFactor {
		return 1
	}
	return time.Duration(n)
})
