package main

import (
	"errors"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

func TestATransactionThatIsRefusedAsAWholeIsAnError(t *testing.T) {
	refused := make(chan error)
	go func() {
		// The thread ends with its capabilities gone.
		runtime.LockOSThread()
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var none [2]unix.CapUserData
		if err := unix.Capset(&header, &none[0]); err != nil {
			refused <- err
			return
		}
		refused <- pod{}.withdraw()
	}()

	if err := <-refused; !errors.Is(err, unix.EPERM) {
		t.Error(err)
	}
}
