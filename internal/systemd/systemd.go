// Package systemd knows whether the machine runs systemd, which transient units there are, and how slices are
// named. It reads files and does not speak to systemd.
package systemd

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strings"
)

// Running reports whether systemd is the machine's PID 1, as sd_booted(3) does.
func Running() bool {
	info, err := os.Lstat("/run/systemd/system")
	return err == nil && info.IsDir()
}

// transientUnits is where systemd keeps the units that were made by a call: each is a file of its name for as
// long as systemd knows the unit.
const transientUnits = "/run/systemd/transient"

// Transient reports whether systemd knows a transient unit of this name.
func Transient(name string) bool {
	_, err := os.Lstat(path.Join(transientUnits, name))
	return err == nil
}

// TransientUnits returns the names of all transient units, and of directories of settings such as
// kubepods.slice.d.
func TransientUnits() ([]string, error) {
	entries, err := os.ReadDir(transientUnits)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	names := make([]string, len(entries))
	for i, e := range entries {
		names[i] = e.Name()
	}
	return names, err
}

// SliceSuffix ends the name of every slice.
const SliceSuffix = ".slice"

// maxUnitName is the longest name of a unit that systemd takes.
const maxUnitName = 255

// SlicePath returns the control group of a slice as a path from the root of the hierarchy. Dashes in the name
// stand for the nesting, so that a-b.slice is at /a.slice/a-b.slice (systemd.slice(5)).
func SlicePath(name string) (string, error) {
	base, ok := strings.CutSuffix(name, SliceSuffix)
	switch {
	case !ok || base == "" || len(name) > maxUnitName:
		return "", fmt.Errorf("%q is not the name of a slice", name)
	case base == "-":
		return "/", nil
	}

	group, parents := "/", ""
	for part := range strings.SplitSeq(base, "-") {
		if part == "" || strings.IndexFunc(part, notInUnitName) >= 0 {
			return "", fmt.Errorf("%q is not the name of a slice", name)
		}

		group = path.Join(group, parents+part+SliceSuffix)
		parents += part + "-"
	}

	return group, nil
}

// notInUnitName reports whether a character may not be in the name of a unit (systemd.unit(5)). Dashes have
// been cut out by the caller.
func notInUnitName(r rune) bool {
	switch {
	case 'a' <= r && r <= 'z', 'A' <= r && r <= 'Z', '0' <= r && r <= '9', strings.ContainsRune(`:_.\`, r):
		return false
	}
	return true
}
