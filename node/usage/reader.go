package usage

import (
	"bytes"
	"path/filepath"
	"time"

	counters "github.com/trivet-node/trivet/internal/cgroup/usage"
	"github.com/trivet-node/trivet/node/machine"
)

// Groups is how control groups are mounted (cgroup.Host).
type Groups interface {
	// Dir returns the directory of a group in the hierarchy of a controller, "" if that is not mounted.
	Dir(controller, group string) string
	// Reader returns what reads the counters of a group.
	Reader(group string, keep bool) *counters.Reader
}

// reader reads groups. It is for one pass, and for one goroutine.
type reader struct {
	files
	groups  Groups
	v2      bool
	machine machine.Machine

	// networks are the interfaces of network namespaces.
	networks map[string][]Interface
	// kept is what was kept of the groups, by path, and next what is to be.
	kept, next map[string]*kept
}

// kept is what is kept of a group between passes.
type kept struct {
	// counters keeps the directories of the group open, and no files: a file that has been read holds a page
	// of the kernel's memory, and a node has some thousand of them.
	counters *counters.Reader

	limits Limits
	// due is when the limits are read again.
	due time.Time
}

// limitsAge is how old limits may be: they change when somebody changes the pod.
const limitsAge = time.Minute

// of returns what is kept of a group.
func (r *reader) of(path string) *kept {
	k := r.next[path]
	if k == nil {
		k = r.kept[path]
	}
	if k == nil {
		k = &kept{counters: r.groups.Reader(path, false)}
		k.counters.KeepDirs()
	}

	r.next[path] = k
	return k
}

// end closes what is kept of groups that were not read in this pass, and returns the rest.
func (r *reader) end() map[string]*kept {
	for path, k := range r.kept {
		if r.next[path] == nil {
			k.counters.Close()
		}
	}
	return r.next
}

// proc returns where a file of procfs is.
func (r *reader) proc(name string) string { return filepath.Join("/", r.machine.Root, "proc", name) }

// group reads a group, nil if it is gone. withProcesses has it look at the processes as well.
func (r *reader) group(path string, depth Depth, withProcesses bool) *Group {
	detail := counters.Basic
	if depth == Everything {
		detail = counters.Full
	}

	k := r.of(path)
	reading, err := k.counters.Read(detail)
	if err != nil {
		return nil
	}

	g := &Group{Path: path, Reading: reading}
	if path == "/" {
		r.whole(g)
	}

	if depth == CPUAndMemory {
		return g
	}

	if now := time.Now(); !now.Before(k.due) {
		k.limits = r.limits(path)
		k.due = now.Add(limitsAge)
	}

	g.Limits = k.limits
	if withProcesses {
		if all, err := k.counters.Processes(); err == nil {
			g.Processes = r.processes(all)
		}
	}

	return g
}

// whole fills in what the root group does not have: the limits are the machine's, and on v2 the use of memory
// is what v1 counts.
func (r *reader) whole(g *Group) {
	if r.v2 {
		g.Memory = g.RSS + g.Cache
		g.WorkingSet = g.Memory - min(g.Memory, g.InactiveFile)
	}

	m, err := r.machine.Memory()
	if err != nil {
		return
	}

	g.MemoryLimit = uint64(m.Total)
	g.Swap = uint64(m.Swap - m.SwapFree)
	g.SwapLimit = new(uint64(m.Swap))
}

// limits reads what a group may use. What is not there is no limit.
func (r *reader) limits(path string) Limits {
	cpu, memory := r.groups.Dir("cpu", path), r.groups.Dir("memory", path)
	if !r.v2 {
		// A quota of -1 is none, and not a number.
		return Limits{
			Shares:      r.number(cpu, "cpu.shares"),
			Quota:       r.number(cpu, "cpu.cfs_quota_us"),
			Period:      r.number(cpu, "cpu.cfs_period_us"),
			Reservation: r.limit(memory, "memory.soft_limit_in_bytes"),
		}
	}

	out := Limits{
		Shares:      sharesOf(r.number(cpu, "cpu.weight")),
		Reservation: r.limit(memory, "memory.min"),
	}
	if b, err := r.read(cpu, "cpu.max"); err == nil {
		quota, period, _ := bytes.Cut(b, []byte(" "))
		out.Period = parse(period)
		if n := parse(quota); n < unlimited {
			out.Quota = n
		}
	}

	return out
}

// sharesOf converts a weight of v2 (1 to 10000) to shares of v1 (2 to 262144), as cAdvisor does.
func sharesOf(weight uint64) uint64 {
	if weight < 1 || weight > 10000 {
		return 0
	}
	return 2 + (weight-1)*262142/9999
}

// boot returns when the machine started, to the second.
func (r *reader) boot() time.Time {
	b, err := r.read(r.proc(""), "stat")
	if err != nil {
		return time.Time{}
	}
	for line := range bytes.Lines(b) {
		if seconds, ok := bytes.CutPrefix(line, []byte("btime ")); ok {
			return time.Unix(int64(parse(seconds)), 0)
		}
	}
	return time.Time{}
}
