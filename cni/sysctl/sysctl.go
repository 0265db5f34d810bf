// Package sysctl reads and writes the kernel's settings below /proc/sys, those of the network namespace that
// the calling thread is in.
package sysctl

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/internal/blocking"
)

const root = "/proc/sys/"

// Get returns the value of a setting, such as net/ipv4/ip_forward; "" when the kernel does not have it.
func Get(name string) string {
	data, err := blocking.ReadFile(root + name)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(data))
}

// Set writes a setting.
func Set(name, value string) error {
	f, err := blocking.Open(root+name, os.O_WRONLY, 0)
	if err == nil {
		_, err = f.WriteString(value)
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		return fmt.Errorf("set sysctl %s to %s: %w", name, value, err)
	}
	return nil
}

// SetIfPresent is Set where a kernel that does not have the setting (IPv6 is off) is success.
func SetIfPresent(name, value string) error {
	err := Set(name, value)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// Setting is one with the value that it is to have.
type Setting struct{ Name, Value string }

// SetIPIfPresent is SetIfPresent for settings of IPv4 and IPv6 (net/ipv4, net/ipv6), in order. Each network
// namespace has such directories of its own, and the kernel finds one by comparing those of all namespaces: a
// third of a millisecond with a thousand pods. So those of a family are written with one look.
func SetIPIfPresent(settings []Setting) (err error) {
	family, dir := "", -1
	defer func() { _ = unix.Close(dir) }()

	for _, s := range settings {
		prefix := s.Name[:min(len(s.Name), len("net/ipv4/"))]
		if prefix != family {
			_ = unix.Close(dir)
			family = prefix
			dir, err = unix.Open(root+family, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		}

		if dir >= 0 {
			err = write(dir, strings.TrimPrefix(s.Name, family), s.Value)
		}
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("set sysctl %s to %s: %w", s.Name, s.Value, err)
		}
	}

	return nil
}

// write writes a value to a file below a directory.
func write(dir int, path, value string) error {
	fd, err := unix.Openat(dir, path, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	_, err = unix.Write(fd, []byte(value))
	return errors.Join(err, unix.Close(fd))
}

// EnsureIfPresent is SetIfPresent for a setting that most likely has the value already.
func EnsureIfPresent(name, value string) error {
	if Get(name) == value {
		return nil
	}
	return SetIfPresent(name, value)
}
