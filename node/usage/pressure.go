package usage

import (
	"bytes"
	"time"
)

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
