package loopcontrol_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/internal/loopcontrol"
	"github.com/trivet-node/trivet/internal/retry"
	"github.com/trivet-node/trivet/internal/testenv"
)

// attach attaches a file to a free device until the returned one is closed.
func attach(t *testing.T, c *loopcontrol.Control) *os.File {
	t.Helper()
	backing, err := os.Create(filepath.Join(t.TempDir(), "disk"))
	if err != nil {
		t.Fatal(err)
	}
	defer backing.Close()
	if err := backing.Truncate(1 << 20); err != nil {
		t.Fatal(err)
	}

	for range 100 {
		n, err := c.Free()
		if err != nil {
			t.Fatal(err)
		}
		dev, err := os.OpenFile(fmt.Sprintf("/dev/loop%d", n), os.O_RDWR, 0)
		if loopcontrol.IsTaken(err) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}

		config := unix.LoopConfig{Fd: uint32(backing.Fd())}
		config.Info.Flags = unix.LO_FLAGS_AUTOCLEAR
		if err = unix.IoctlLoopConfigure(int(dev.Fd()), &config); err == nil {
			return dev
		}

		dev.Close()
		if !loopcontrol.IsTaken(err) {
			t.Fatal(err)
		}
	}

	t.Fatal("others took each free loop device")
	return nil
}

func limit(dev *os.File) string {
	return filepath.Join("/sys/block", filepath.Base(dev.Name()), "queue/discard_max_bytes")
}

// refuse has a device refuse to discard.
func refuse(t *testing.T, dev *os.File) {
	t.Helper()
	if err := os.WriteFile(limit(dev), []byte("0"), 0); err != nil {
		t.Fatal(err)
	}
}

func discards(t *testing.T, dev *os.File) bool {
	t.Helper()
	bytes, err := os.ReadFile(limit(dev))
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(bytes)) != "0"
}

func control(t *testing.T) *loopcontrol.Control {
	t.Helper()
	testenv.Root(t)
	c, err := loopcontrol.Open()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// A process that was killed has left its device as it was told to be.
func TestFreeDeviceDiscardsWhateverItsLastUserHasToldIt(t *testing.T) {
	c := control(t)
	var first *os.File
	again(t, func() error {
		if first = attach(t, c); discards(t, first) {
			return nil
		}
		return errors.Join(errors.New("a new device refuses to discard"), first.Close())
	})

	refuse(t, first)
	first.Close()

	again(t, func() error {
		second := attach(t, c)
		defer second.Close()
		if !discards(t, second) {
			return fmt.Errorf("%s, which was %s before, refuses to discard", second.Name(), first.Name())
		}
		return nil
	})
}

// again calls f until it returns nil. A device that a process looks at cannot be removed at that moment, and
// tests of volumes, which run at the same time, look at all of them.
func again(t *testing.T, f func() error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	pauses := retry.Backoff{First: 10 * time.Millisecond, Max: 10 * time.Millisecond}
	if err := retry.Until(ctx, pauses, func(context.Context) error { return f() }); err != nil {
		t.Error(err)
	}
}

func TestMendLeavesDevicesInUseAsTheyAre(t *testing.T) {
	c := control(t)
	used, left := attach(t, c), attach(t, c)
	defer used.Close()
	refuse(t, used)
	refuse(t, left)
	left.Close()

	again(t, func() error { return errors.Join(loopcontrol.Mend(), isMended(left)) })
	if discards(t, used) {
		t.Errorf("%s is in use, and discards", used.Name())
	}
}

// isMended is nil if a device that was let go refuses nothing, or is gone.
func isMended(left *os.File) error {
	// Somebody else may have made it again by now.
	bytes, err := os.ReadFile(limit(left))
	if err == nil && strings.TrimSpace(string(bytes)) == "0" {
		hw, _ := os.ReadFile(strings.Replace(limit(left), "max_bytes", "max_hw_bytes", 1))
		if strings.TrimSpace(string(hw)) != "0" {
			return fmt.Errorf("%s is free, and refuses to discard", left.Name())
		}
	}
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ENODEV) {
		return nil
	}
	return err
}
