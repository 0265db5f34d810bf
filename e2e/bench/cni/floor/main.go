// Command cni-floor is what a CNI plugin that is a Go program cannot be faster than: it sends the messages of
// rtnetlink that connect a pod to a bridge, or cut it off, and does nothing else. It reads no configuration,
// allocates no address, and checks and undoes nothing. cni-bench measures it beside real plugins. Called as
// cni-floor-delete it waits until the interface is deleted, and as cni-floor-ports it sends the transactions
// of nftables for two host ports, too.
package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

func main() {
	number, _ := strconv.Atoi(strings.TrimPrefix(os.Getenv("CNI_CONTAINERID"), "pod-"))
	p := pod{
		veth:    "veth" + strconv.Itoa(number),
		address: [4]byte{10, 99, byte(number >> 8), byte(number)},
	}

	if err := p.serve(filepath.Base(os.Args[0]), os.Getenv("CNI_COMMAND")); err != nil {
		fmt.Fprintln(os.Stderr, "cni-floor:", err)
		os.Exit(1)
	}

	_, _ = os.Stdout.WriteString(`{"cniVersion":"1.0.0"}`)
}

// pod is what its number says of one.
type pod struct {
	veth    string
	address [4]byte
}

func (p pod) serve(name, verb string) error {
	hasPorts := name == "cni-floor-ports"
	switch {
	case verb == "ADD" && hasPorts:
		// Before it, since the thread stays in the pod's namespace.
		return errors.Join(p.publish(), p.add(os.Getenv("CNI_NETNS")))
	case verb == "ADD":
		return p.add(os.Getenv("CNI_NETNS"))
	case verb == "DEL" && hasPorts:
		return errors.Join(p.withdraw(), p.del(discard))
	case verb == "DEL" && name == "cni-floor-delete":
		return p.del(deleteLink)
	case verb == "DEL":
		return p.del(discard)
	}
	return nil
}

// The bridge, and its address.
const bridge = "bench0"

var gateway = [4]byte{10, 99, 255, 254}

const prefixLength = 16

// add connects the pod, by the same messages in the same batches as trivet-cni.
func (p pod) add(netns string) error {
	host, err := open(unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}

	there, err := unix.Open(netns, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}

	master, err := ensureBridge(host)
	if err != nil {
		return err
	}
	err = host.do(newVeth(p.veth, master, there), setAlias(p.veth), setHairpin(p.veth))
	if err != nil {
		return err
	}

	runtime.LockOSThread()
	if err := unix.Setns(there, unix.CLONE_NEWNET); err != nil {
		return err
	}

	return p.setUp()
}

// ensureBridge returns the index of the bridge, which the first pod makes.
func ensureBridge(host *conn) (uint32, error) {
	master, err := host.index(bridge)
	if errors.Is(err, unix.ENODEV) {
		// Another pod may be faster.
		err = host.do(newBridge(bridge))
		if err == nil || errors.Is(err, unix.EEXIST) {
			master, err = host.index(bridge)
		}
		if err == nil {
			err = host.do(setUp(master))
		}
	}
	if err != nil {
		return 0, err
	}

	err = host.do(newAddress(master, gateway))
	if errors.Is(err, unix.EEXIST) {
		err = nil
	}

	return master, err
}

// setUp configures the pod's end, in whose namespace the calling thread is.
func (p pod) setUp() error {
	inside, err := open(unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}

	eth0, err := inside.index("eth0")
	if err != nil {
		return err
	}

	return inside.do(setUp(1), newAddress(eth0, p.address), setUp(eth0), newDefaultRoute(eth0))
}

// del deletes the host's end, or cuts it off, as trivet-cni does with lazyUnlink.
func (p pod) del(how func(name string) []byte) error {
	host, err := open(unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	return host.do(how(p.veth))
}
