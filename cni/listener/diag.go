package listener

import (
	"encoding/binary"
	"errors"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/cni/netlink"
)

// Numbers of <linux/sock_diag.h> and <linux/inet_diag.h>.
const (
	byFamily      = 20 // SOCK_DIAG_BY_FAMILY
	requestFilter = 1  // INET_DIAG_REQ_BYTECODE
	portAtLeast   = 2  // INET_DIAG_BC_S_GE
	portAtMost    = 3  // INET_DIAG_BC_S_LE
	only6         = 11 // INET_DIAG_SKV6ONLY

	requestSize = 56 // struct inet_diag_req_v2
	answerSize  = 72 // struct inet_diag_msg
)

// States of <net/tcp_states.h>. A socket of UDP that is not connected, and an endpoint of SCTP, is closed.
const (
	stateClosed = 7
	stateListen = 10
)

var numbers = map[string]byte{
	"tcp":  unix.IPPROTO_TCP,
	"udp":  unix.IPPROTO_UDP,
	"sctp": unix.IPPROTO_SCTP,
}

// query lists the sockets that listen on ports first to last; known is false when the kernel cannot answer
// for the protocol.
func query(
	kernel *netlink.Conn,
	protocol string,
	first, last uint16,
) (found []socket, known bool, err error) {
	for _, family := range []byte{unix.AF_INET, unix.AF_INET6} {
		err := kernel.Dump(request(family, protocol, first, last), func(_ uint16, body []byte) {
			if s, ok := parseDiag(body); ok {
				found = append(found, s)
			}
		})
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EPROTONOSUPPORT) {
			return nil, false, nil
		}
		if err != nil {
			return nil, false, err
		}
	}

	return found, true, nil
}

func request(family byte, protocol string, first, last uint16) *netlink.Message {
	states := uint32(1 << stateListen)
	if protocol != "tcp" {
		states |= 1 << stateClosed
	}

	header := make([]byte, requestSize)
	header[0] = family
	header[1] = numbers[protocol]
	binary.NativeEndian.PutUint32(header[4:], states)
	return netlink.NewMessage("list sockets that listen", byFamily, 0, header).
		Bytes(requestFilter, filter(first, last))
}

// filter returns a program for the kernel. Each step has the offset of the next one if it holds, and if not.
// Behind the end is a refusal.
func filter(first, last uint16) []byte {
	var code []byte
	step := func(operation, yes byte, no uint16) {
		code = binary.NativeEndian.AppendUint16(append(code, operation, yes), no)
	}
	step(portAtLeast, 8, 20)
	step(0, 0, first)
	step(portAtMost, 8, 12)
	step(0, 0, last)
	return code
}

// parseDiag reads a struct inet_diag_msg with its attributes.
func parseDiag(body []byte) (s socket, ok bool) {
	if len(body) < answerSize {
		return s, false
	}

	size := 16
	if body[0] == unix.AF_INET {
		size = 4
	}

	address, _ := netip.AddrFromSlice(body[8 : 8+size])

	s.address = netip.AddrPortFrom(address.Unmap(), binary.BigEndian.Uint16(body[4:]))
	s.uid = binary.NativeEndian.Uint32(body[64:])
	s.inode = binary.NativeEndian.Uint32(body[68:])
	netlink.Attributes(body[answerSize:], func(kind uint16, value []byte) {
		if kind == only6 && len(value) == 1 {
			s.only6 = value[0] != 0
		}
	})

	return s, true
}
