// Package netdev parses /proc/net/dev (proc_pid_net(5)): the counters of the interfaces of a network
// namespace. A privileged pod may make as many interfaces as it likes, with any bytes for names.
package netdev

import (
	"bytes"
	"strconv"
	"unicode/utf8"
)

// Interface has the counters of one interface since it was made.
type Interface struct {
	Name     string
	Received Traffic
	Sent     Traffic
}

// Traffic counts one direction.
type Traffic struct{ Bytes, Packets, Errors, Dropped uint64 }

// columns are those of a line after the name, half of them for each direction.
const columns = 16

// Parse reads the lines "NAME: NUMBER NUMBER ..." after the two of the heading. It returns at most so many
// interfaces that the condition holds for, in the kernel's order. Lines of another form are skipped, and
// names that no message of gRPC and no label of a metric could carry.
func Parse(text []byte, shown func(name string) bool, most int) []Interface {
	var all []Interface
	for line := range bytes.Lines(text) {
		if len(all) == most {
			break
		}

		name, rest, found := bytes.Cut(line, []byte(":"))
		name = bytes.TrimSpace(name)
		if !found || !utf8.Valid(name) || !shown(string(name)) {
			continue
		}
		n, ok := numbers(rest)
		if !ok {
			continue
		}

		all = append(all, Interface{
			Name:     string(name),
			Received: traffic(n[:]),
			Sent:     traffic(n[columns/2:]),
		})
	}

	return all
}

// numbers returns the numbers of a line, and false if there are fewer or something else is in it.
func numbers(text []byte) (found [columns]uint64, ok bool) {
	i := 0
	for field := range bytes.FieldsSeq(text) {
		n, err := strconv.ParseUint(string(field), 10, 64)
		if err != nil {
			return found, false
		}
		if i < columns {
			found[i] = n
		}
		i++
	}
	return found, i >= columns
}

// traffic is that of one direction, whose first columns these are.
func traffic(n []uint64) Traffic {
	return Traffic{
		Bytes:   n[0],
		Packets: n[1],
		Errors:  n[2],
		Dropped: n[3],
	}
}
