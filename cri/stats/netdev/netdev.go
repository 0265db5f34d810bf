// Package netdev reads the counters of network interfaces, those of pods' network namespaces included, from
// /proc/net/dev (proc_pid_net(5)). The kernel makes that file for the network namespace of the thread that
// reads it, so that nothing of a pod's own, no process and no mount, has a part in it.
package netdev

import (
	"bytes"
	"errors"
	"strconv"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/internal/namespace"
)

// Interface has the counters of one interface since it was made.
type Interface struct {
	Name string

	RxBytes, RxPackets, RxErrors, RxDropped uint64
	TxBytes, TxPackets, TxErrors, TxDropped uint64
}

// Bounds: a privileged pod may make as many interfaces as it likes.
const (
	maxInterfaces = 64
	maxText       = 32 << 10
)

// Of returns the interfaces of the network namespace at a path, without loopback, at most 64 of them in the
// kernel's order.
func Of(path string) ([]Interface, error) {
	var found []Interface
	err := namespace.Visit(func() (err error) {
		found, err = own()
		return err
	}, path)
	return found, err
}

// own reads those of the namespace that the calling thread is in.
func own() ([]Interface, error) {
	fd, err := unix.Open("/proc/thread-self/net/dev", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)

	text := make([]byte, 0, 2<<10)
	for {
		n, err := unix.Read(fd, text[len(text):cap(text)])
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return nil, err
		}

		text = text[:len(text)+n]
		if n == 0 || len(text) >= maxText {
			return parse(text), nil
		}

		// The kernel writes line by line, and ends a read before one that does not fit.
		if cap(text)-len(text) < 512 {
			text = append(make([]byte, 0, 2*cap(text)), text...)
		}
	}
}

// Columns of a line, after the name.
const (
	rxBytes   = 0
	rxPackets = 1
	rxErrors  = 2
	rxDropped = 3
	txBytes   = 8
	txPackets = 9
	txErrors  = 10
	txDropped = 11
	columns   = 16
)

// parse reads the lines "NAME: NUMBER NUMBER ..." after the two of the heading. Others are skipped.
func parse(text []byte) []Interface {
	var all []Interface
	for line := range bytes.Lines(text) {
		name, rest, found := bytes.Cut(line, []byte(":"))
		name = bytes.TrimSpace(name)
		fields := numbers(rest)
		if !found || len(fields) < columns || string(name) == "lo" {
			continue
		}

		// The kernel lets a pod choose any bytes, which no message of gRPC could carry.
		if !utf8.Valid(name) {
			continue
		}

		all = append(all, Interface{
			Name:      string(name),
			RxBytes:   fields[rxBytes],
			RxPackets: fields[rxPackets],
			RxErrors:  fields[rxErrors],
			RxDropped: fields[rxDropped],
			TxBytes:   fields[txBytes],
			TxPackets: fields[txPackets],
			TxErrors:  fields[txErrors],
			TxDropped: fields[txDropped],
		})
		if len(all) == maxInterfaces {
			break
		}
	}

	return all
}

// numbers returns the numbers of a line; none if something else is in it.
func numbers(text []byte) []uint64 {
	found := make([]uint64, 0, columns)
	for field := range bytes.FieldsSeq(text) {
		n, err := strconv.ParseUint(string(field), 10, 64)
		if err != nil {
			return nil
		}
		found = append(found, n)
	}
	return found
}
