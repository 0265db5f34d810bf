package btrfspool_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/csi/loop"
	"github.com/trivet-node/trivet/internal/retry"
)

// refusing reports whether a loop device can discard, and does not. One that is not there does when it is
// made again.
func refusing(t *testing.T, name string) bool {
	t.Helper()
	queue := filepath.Join("/sys/block", name, "queue")
	most, err := os.ReadFile(filepath.Join(queue, "discard_max_bytes"))
	if err != nil {
		return false
	}
	able, _ := os.ReadFile(filepath.Join(queue, "discard_max_hw_bytes"))
	return strings.TrimSpace(string(most)) == "0" && strings.TrimSpace(string(able)) != "0"
}

// deviceOf returns the name of a pool's loop device.
func deviceOf(t *testing.T, instance string) string {
	t.Helper()
	tag := loop.TagOf(instance, "pool")
	found, err := loop.Find(tag)
	if err != nil || found[tag] == nil {
		t.Fatalf("device of %s: %v, %v", instance, found, err)
	}
	defer found[tag].Close()
	return filepath.Base(found[tag].Name())
}

// awaitNoPool waits until the pool has no device any more: for a moment others may look at it.
func awaitNoPool(t *testing.T, instance string) {
	t.Helper()
	for range retry.Every(t.Context(), time.Millisecond) {
		found, err := loop.Find(loop.TagOf(instance, "pool"))
		if err != nil {
			t.Fatal(err)
		}
		if len(found) == 0 {
			return
		}
		for _, dev := range found {
			dev.Close()
		}
	}
}

// A pool wants a device that gives no blocks back. The next user of the device does not.
func TestPoolLeavesNoDeviceThatRefusesToDiscard(t *testing.T) {
	d := dir(t)
	instance := "left-" + filepath.Base(d)
	p := open(t, d, instance, 1<<30)
	name := deviceOf(t, instance)
	if !refusing(t, name) {
		t.Errorf("the device %s of a pool discards", name)
	}

	closePool(t, p, true)
	checkFreeDevice(t, name)
}

// A process that was killed, and whose pool was unmounted by somebody else, has mended nothing.
func TestNextPoolMendsTheDeviceOfOneThatWasKilled(t *testing.T) {
	d := dir(t)
	instance := "killed-" + filepath.Base(d)
	killed := open(t, d, instance, 1<<30)
	name := deviceOf(t, instance)
	closePool(t, killed, false)
	if err := unix.Unmount(filepath.Join(d, "pool"), 0); err != nil {
		t.Fatal(err)
	}
	awaitNoPool(t, instance)

	closePool(t, open(t, d, instance, 1<<30), true)
	checkFreeDevice(t, name)
}

// checkFreeDevice fails if a device is free, and refuses to discard. Another process may have it by now.
func checkFreeDevice(t *testing.T, name string) {
	t.Helper()
	if _, err := os.Stat(filepath.Join("/sys/block", name, "loop/backing_file")); err == nil {
		return
	}
	if refusing(t, name) {
		t.Errorf("the free device %s refuses to discard", name)
	}
}
