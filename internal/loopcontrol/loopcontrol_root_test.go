package loopcontrol_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/internal/loopcontrol"
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
	first := attach(t, c)
	if !discards(t, first) {
		t.Fatal("a new device refuses to discard")
	}

	refuse(t, first)
	first.Close()

	second := attach(t, c)
	defer second.Close()
	if !discards(t, second) {
		t.Errorf("%s, which was %s before, refuses to discard", second.Name(), first.Name())
	}
}

func TestMendLeavesDevicesInUseAsTheyAre(t *testing.T) {
	c := control(t)
	used, left := attach(t, c), attach(t, c)
	defer used.Close()
	refuse(t, used)
	refuse(t, left)
	left.Close()

	if err := loopcontrol.Mend(); err != nil {
		t.Fatal(err)
	}
	if discards(t, used) {
		t.Errorf("%s is in use, and discards", used.Name())
	}

	// Somebody else may have made it again by now.
	bytes, err := os.ReadFile(limit(left))
	if err == nil && strings.TrimSpace(string(bytes)) == "0" {
		hw, _ := os.ReadFile(strings.Replace(limit(left), "max_bytes", "max_hw_bytes", 1))
		if strings.TrimSpace(string(hw)) != "0" {
			t.Errorf("%s is free, and refuses to discard", left.Name())
		}
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}
