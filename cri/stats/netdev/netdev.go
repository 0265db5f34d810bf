// Package netdev reads the counters of network interfaces, those of pods' network namespaces included, from
// /proc/net/dev (proc_pid_net(5)). The kernel makes that file for the network namespace of the thread that
// reads it, so that nothing of a pod's own, no process and no mount, has a part in it.
package netdev

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/internal/namespace"
	"github.com/trivet-node/trivet/internal/netdev"
)

// Interface has the counters of one interface since it was made.
type Interface = netdev.Interface

// Bounds: a privileged pod may make as many interfaces as it likes.
const (
	maxInterfaces = 64
	maxText       = 32 << 10
)

// Result is what was read of one network namespace: its interfaces without loopback, at most 64 of them in
// the kernel's order.
type Result struct {
	Interfaces []Interface
	Err        error
}

// Read reads the interfaces of the network namespaces at these paths, in their order. One thread goes from
// namespace to namespace, and ends with the last one.
func Read(paths []string) []Result {
	results := make([]Result, len(paths))
	err := namespace.Do(func() error {
		// The files below are those of the namespace that the thread is in when it opens them.
		dir, err := unix.Open("/proc/thread-self/net", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("open /proc/thread-self/net: %w", err)
		}
		defer unix.Close(dir)

		text := make([]byte, 0, 2<<10)
		for i, path := range paths {
			if results[i].Err = enter(path); results[i].Err != nil {
				continue
			}

			text, results[i].Err = own(dir, text[:0])
			results[i].Interfaces = netdev.Parse(text, shown, maxInterfaces)
		}

		return nil
	})
	if err != nil {
		for i := range results {
			results[i] = Result{Err: err}
		}
	}

	return results
}

// shown reports whether an interface is one of those.
func shown(name string) bool { return name != "lo" }

// enter brings the calling thread into a network namespace.
func enter(path string) error {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open network namespace %s: %w", path, err)
	}
	defer unix.Close(fd)

	if err := unix.Setns(fd, unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("enter network namespace %s: %w", path, err)
	}
	return nil
}

// own appends the file of the namespace that the calling thread is in, whose directory /proc/thread-self/net
// is open. On an error it returns nothing.
func own(dir int, text []byte) ([]byte, error) {
	fd, err := unix.Openat(dir, "dev", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)

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
			return text, nil
		}

		// The kernel writes line by line, and ends a read before one that does not fit.
		if cap(text)-len(text) < 512 {
			text = append(make([]byte, 0, 2*cap(text)), text...)
		}
	}
}
