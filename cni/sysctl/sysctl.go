// Package sysctl reads and writes the kernel's settings below /proc/sys, those of the network namespace that
// the calling thread is in.
package sysctl

import (
	"errors"
	"fmt"
	"os"
	"strings"

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

// EnsureIfPresent is SetIfPresent for a setting that most likely has the value already.
func EnsureIfPresent(name, value string) error {
	if Get(name) == value {
		return nil
	}
	return SetIfPresent(name, value)
}
