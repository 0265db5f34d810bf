package usage

import (
	counters "github.com/trivet-node/trivet/internal/cgroup/usage"
	"github.com/trivet-node/trivet/internal/procfs"
)

// processesOf looks at the processes of a group.
func processesOf(group counters.Processes) *Processes {
	out := &Processes{
		Count: uint64(group.Count),
		Open:  procfs.Open{Unknown: true},
	}

	// Of more processes than are listed, what they have open is not known.
	if group.Count == len(group.PIDs) {
		out.Open = procfs.Count(group.PIDs)
	}

	if len(group.PIDs) > 0 {
		out.First = group.PIDs[0]
		if limit, err := procfs.OpenFilesLimit(out.First); err == nil {
			out.MaxOpenFiles = &limit
		}
	}

	return out
}
