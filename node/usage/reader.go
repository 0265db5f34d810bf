package usage

import (
	"bytes"
	"path/filepath"
	"time"

	"github.com/trivet-node/trivet/node/machine"
)

// Groups is how control groups are mounted (cgroup.Host).
type Groups interface {
	// Dir returns the directory of a group in the hierarchy of a controller, "" if that is not mounted.
	Dir(controller, group string) string
}

// reader reads groups. It is for one pass, and for one goroutine.
type reader struct {
	files
	groups Groups
	v2     bool
	root   string // holds /proc and /sys; empty: this machine's

	// devices are the names of block devices by number, and networks the interfaces of network namespaces.
	devices  map[string]string
	networks map[string][]Interface
}

// proc returns where a file of procfs is.
func (r *reader) proc(name string) string { return filepath.Join("/", r.root, "proc", name) }

// group reads a group, nil if it is gone.
func (r *reader) group(path string, depth Depth) *Group {
	g := &Group{
		Path: path,
		Time: time.Now(),
	}

	read := r.readV1
	if r.v2 {
		read = r.readV2
	}
	if read(g, depth) != nil {
		return nil
	}

	if depth == Everything {
		g.Pressure = r.pressure(path)
	}

	return g
}

// machineMemory returns the machine's memory, and how much swap is used and there is. Without an answer the
// machine has no limit that is known.
func (r *reader) machineMemory() (memory, swapUsed, swap uint64) {
	m, err := machine.Machine{Root: r.root}.Memory()
	if err != nil {
		return 0, 0, 0
	}
	return uint64(m.Total), uint64(m.Swap - m.SwapFree), uint64(m.Swap)
}

// boot returns when the machine started, to the second.
func (r *reader) boot() (at time.Time) {
	_ = r.keyed(r.proc(""), "stat", func(key []byte, n uint64) {
		if string(key) == "btime" {
			at = time.Unix(int64(n), 0)
		}
	})
	return at
}

// pressure reads what a group has waited for, nil where the kernel does not measure it. For the whole machine
// it is in /proc, also on hosts with cgroup v1.
func (r *reader) pressure(path string) *Pressure {
	dir, suffix := r.proc("pressure"), ""
	if path != "/" {
		if !r.v2 {
			return nil
		}

		dir, suffix = r.groups.Dir("", path), ".pressure"
	}

	out := &Pressure{}
	for name, stalls := range map[string]*Stalls{
		"cpu":    &out.CPU,
		"memory": &out.Memory,
		"io":     &out.IO,
	} {
		b, err := r.read(dir, name+suffix)
		if err != nil {
			return nil
		}

		stalls.parse(b)
	}

	return out
}

// parse takes lines "some avg10=0.00 avg60=0.00 avg300=0.00 total=0"; the total is in microseconds.
func (s *Stalls) parse(b []byte) {
	for line := range bytes.Lines(b) {
		kind, rest, _ := bytes.Cut(bytes.TrimSpace(line), []byte(" "))
		stall := &s.Some
		if string(kind) == "full" {
			stall = &s.Full
		}

		for field := range bytes.SplitSeq(rest, []byte(" ")) {
			key, value, _ := bytes.Cut(field, []byte("="))
			switch string(key) {
			case "avg10":
				stall.Avg10 = float(value)
			case "avg60":
				stall.Avg60 = float(value)
			case "avg300":
				stall.Avg300 = float(value)
			case "total":
				stall.Total = time.Duration(parse(value)) * time.Microsecond
			}
		}
	}
}
