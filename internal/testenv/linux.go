package testenv

import (
	"fmt"
	"testing"

	"golang.org/x/sys/unix"
)

// LinuxIs reports whether the kernel is of a version, or of a later one. What an older kernel does not have
// is no reason to fail in CI.
func LinuxIs(tb testing.TB, major, minor int) bool {
	tb.Helper()
	var uts unix.Utsname
	if err := unix.Uname(&uts); err != nil {
		tb.Fatal(err)
	}

	var hasMajor, hasMinor int
	release := unix.ByteSliceToString(uts.Release[:])
	if _, err := fmt.Sscanf(release, "%d.%d", &hasMajor, &hasMinor); err != nil {
		tb.Fatalf("kernel %s: %v", release, err)
	}
	return hasMajor > major || hasMajor == major && hasMinor >= minor
}
