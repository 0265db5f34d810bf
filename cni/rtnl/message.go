package rtnl

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// Flags that callers combine; every message also carries REQUEST and ACK.
const (
	Create  = unix.NLM_F_CREATE
	Excl    = unix.NLM_F_EXCL
	Replace = unix.NLM_F_REPLACE
)

var native = binary.NativeEndian

// Message is one request of a batch. Build it with the constructors of this package and its attribute
// methods.
type Message struct {
	what  string // names the step in errors: "create veth vethab12"
	data  []byte // netlink header, family header, attributes
	nests []int  // offsets of open nested attributes
}

// NewMessage begins a request for OpenNetfilter's socket with the header of its family; what names it in
// errors.
func NewMessage(what string, kind uint16, header []byte) *Message {
	return newMessage(what, kind, 0, header)
}

func newMessage(what string, kind uint16, flags uint16, header []byte) *Message {
	m := &Message{what: what, data: make([]byte, unix.NLMSG_HDRLEN, 256)}
	native.PutUint16(m.data[4:], kind)
	native.PutUint16(m.data[6:], flags|unix.NLM_F_REQUEST)
	m.data = append(m.data, header...)
	return m
}

func (m *Message) flags() uint16 { return native.Uint16(m.data[6:]) }

// Bytes adds an attribute (struct rtattr, netlink(7)).
func (m *Message) Bytes(kind uint16, value []byte) *Message {
	m.data = native.AppendUint16(m.data, uint16(unix.SizeofRtAttr+len(value)))
	m.data = native.AppendUint16(m.data, kind)
	m.data = append(m.data, value...)
	for len(m.data)%unix.RTA_ALIGNTO != 0 {
		m.data = append(m.data, 0)
	}
	return m
}

// String adds a zero-terminated string attribute.
func (m *Message) String(kind uint16, value string) *Message {
	return m.Bytes(kind, append([]byte(value), 0))
}

// Uint32 adds a 32 bit attribute in host byte order.
func (m *Message) Uint32(kind uint16, value uint32) *Message {
	return m.Bytes(kind, native.AppendUint32(nil, value))
}

// Uint8 adds an 8 bit attribute.
func (m *Message) Uint8(kind uint16, value uint8) *Message { return m.Bytes(kind, []byte{value}) }

// Nest opens a nested attribute; End closes the innermost one.
func (m *Message) Nest(kind uint16) *Message {
	m.nests = append(m.nests, len(m.data))
	m.data = native.AppendUint16(m.data, 0)
	m.data = native.AppendUint16(m.data, kind)
	return m
}

// Raw adds bytes that are no attribute, such as the header of a peer link inside a nested attribute.
func (m *Message) Raw(value []byte) *Message {
	m.data = append(m.data, value...)
	return m
}

// End closes the innermost nested attribute.
func (m *Message) End() *Message {
	at := m.nests[len(m.nests)-1]
	m.nests = m.nests[:len(m.nests)-1]
	native.PutUint16(m.data[at:], uint16(len(m.data)-at))
	return m
}

// seal writes length and sequence number.
func (m *Message) seal(seq uint32, flags uint16) []byte {
	native.PutUint32(m.data, uint32(len(m.data)))
	native.PutUint16(m.data[6:], m.flags()|flags)
	native.PutUint32(m.data[8:], seq)
	return m.data
}

// Attributes walks the attributes in data; it stops at a malformed one, as the kernel's own parser does.
func Attributes(data []byte, visit func(kind uint16, value []byte)) {
	for len(data) >= unix.SizeofRtAttr {
		size := int(native.Uint16(data))
		if size < unix.SizeofRtAttr || size > len(data) {
			return
		}
		visit(
			native.Uint16(data[2:])&^(unix.NLA_F_NESTED|unix.NLA_F_NET_BYTEORDER),
			data[unix.SizeofRtAttr:size],
		)
		data = data[min(len(data), (size+3)&^3):]
	}
}
