package bridge

import (
	"fmt"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/cni/rtnl"
	"github.com/trivet-node/trivet/cni/rtnl/rtnltest"
	"github.com/trivet-node/trivet/internal/namespace"
	"github.com/trivet-node/trivet/internal/testenv"
)

// What a pod sends, or gets, right after ADD is not dropped.
func TestInterfacesAreConnectedWhenAttachReturns(t *testing.T) {
	if !testenv.LinuxIs(t, 6, 8) {
		testenv.Skip(t, "Linux sees by itself when an interface is connected, before 6.8")
	}

	// Some ten in a hundred were not.
	for range 5 {
		rtnltest.Host(t, func(host *rtnl.Conn) error {
			for i := range 12 {
				v4, v6 := fmt.Sprintf("10.1.0.%d/24", i+9), fmt.Sprintf("fd01::%d/64", i+9)
				a := attachment(t, fmt.Sprint("pod", i), v4, v6)
				ends, err := Attach(host, config, a)
				if err != nil {
					return err
				}

				checkConnected(t, ends.Bridge.Name)
				checkConnected(t, ends.Host.Name)
				err = namespace.Do(func() error {
					checkConnected(t, ends.Pod.Name)
					return nil
				}, a.Netns)
				if err != nil {
					return err
				}
			}
			return nil
		})
	}
}

// checkConnected asks by SIOCGIFFLAGS: RTM_GETLINK would have the kernel look first.
func checkConnected(t *testing.T, name string) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Close(fd) }()

	request, err := unix.NewIfreq(name)
	if err == nil {
		err = unix.IoctlIfreq(fd, unix.SIOCGIFFLAGS, request)
	}
	if err != nil {
		t.Errorf("%s: %v", name, err)
		return
	}
	if request.Uint16()&unix.IFF_RUNNING == 0 {
		t.Errorf("%s is not running", name)
	}
}
