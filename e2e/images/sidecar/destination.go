package main

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// soOriginalDst is SO_ORIGINAL_DST of IPv4 and IPv6 (linux/netfilter_ipv4.h, netfilter_ipv6/ip6_tables.h).
const soOriginalDst = 80

// originalDestination is where a connection was to go before it was redirected.
func originalDestination(conn *net.TCPConn) (netip.AddrPort, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return netip.AddrPort{}, err
	}

	local := conn.LocalAddr().(*net.TCPAddr).AddrPort().Addr()
	var to netip.AddrPort
	var asked error
	err = raw.Control(func(fd uintptr) {
		if local.Unmap().Is4() {
			to, asked = destination4(fd)
		} else {
			to, asked = destination6(fd)
		}
	})
	if err == nil {
		err = asked
	}
	if err != nil {
		return to, fmt.Errorf("ask where %s was to go: %w", conn.RemoteAddr(), err)
	}

	return to, nil
}

func destination4(fd uintptr) (netip.AddrPort, error) {
	var a unix.RawSockaddrInet4
	err := getsockopt(fd, unix.SOL_IP, unsafe.Pointer(&a), unsafe.Sizeof(a))
	return netip.AddrPortFrom(netip.AddrFrom4(a.Addr), port(&a.Port)), err
}

func destination6(fd uintptr) (netip.AddrPort, error) {
	var a unix.RawSockaddrInet6
	err := getsockopt(fd, unix.SOL_IPV6, unsafe.Pointer(&a), unsafe.Sizeof(a))
	return netip.AddrPortFrom(netip.AddrFrom16(a.Addr), port(&a.Port)), err
}

func port(networkOrder *uint16) uint16 {
	return binary.BigEndian.Uint16((*[2]byte)(unsafe.Pointer(networkOrder))[:])
}

func getsockopt(fd, level uintptr, value unsafe.Pointer, size uintptr) error {
	length := uint32(size)
	_, _, errno := syscall.Syscall6(syscall.SYS_GETSOCKOPT, fd, level, soOriginalDst,
		uintptr(value), uintptr(unsafe.Pointer(&length)), 0)
	if errno != 0 {
		return errno
	}
	return nil
}
