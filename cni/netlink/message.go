package netlink

import (
	"encoding/binary"
	"fmt"

	"golang.org/x/sys/unix"
)

// Flags of a request that creates something. NLM_F_REQUEST is in every request, and Conn adds what says how
// the kernel is to answer.
const (
	// Create makes the object when it does not exist.
	Create = unix.NLM_F_CREATE
	// Excl refuses the request when the object exists.
	Excl = unix.NLM_F_EXCL
	// Replace changes an object that exists.
	Replace = unix.NLM_F_REPLACE
)

var native = binary.NativeEndian

// header is a struct nlmsghdr.
type header struct {
	kind  uint16
	flags uint16
	seq   uint32
	port  uint32
}

// Message is one request. NewMessage begins it and its methods append attributes, in order.
type Message struct {
	op    string // names the request in errors: "create veth vethab12"
	data  []byte // netlink header, family header, attributes
	nests []int  // offsets of the nested attributes that are open
}

// NewMessage begins a request of type kind with the fixed header of its family; op names it in errors.
// Create, Excl and Replace are the flags.
func NewMessage(op string, kind, flags uint16, familyHeader []byte) *Message {
	m := &Message{op: op, data: make([]byte, unix.NLMSG_HDRLEN, 256)}
	native.PutUint16(m.data[4:], kind)
	native.PutUint16(m.data[6:], flags|unix.NLM_F_REQUEST)
	m.data = append(m.data, familyHeader...)
	return m
}

// Bytes appends an attribute (struct nlattr).
func (m *Message) Bytes(kind uint16, value []byte) *Message {
	m.data = native.AppendUint16(m.data, uint16(unix.SizeofRtAttr+len(value)))
	m.data = native.AppendUint16(m.data, kind)
	m.data = append(m.data, value...)
	for len(m.data)%unix.NLA_ALIGNTO != 0 {
		m.data = append(m.data, 0)
	}
	return m
}

// String appends a zero-terminated string attribute.
func (m *Message) String(kind uint16, value string) *Message {
	return m.Bytes(kind, append([]byte(value), 0))
}

// Uint32 appends a 32 bit attribute in host byte order.
func (m *Message) Uint32(kind uint16, value uint32) *Message {
	return m.Bytes(kind, native.AppendUint32(nil, value))
}

// Uint16 appends a 16 bit attribute in host byte order.
func (m *Message) Uint16(kind uint16, value uint16) *Message {
	return m.Bytes(kind, native.AppendUint16(nil, value))
}

// Uint8 appends an 8 bit attribute.
func (m *Message) Uint8(kind uint16, value uint8) *Message { return m.Bytes(kind, []byte{value}) }

// Nest opens a nested attribute: what is appended until End is inside it.
func (m *Message) Nest(kind uint16) *Message {
	m.nests = append(m.nests, len(m.data))
	m.data = native.AppendUint16(m.data, 0)
	m.data = native.AppendUint16(m.data, kind)
	return m
}

// Raw appends bytes that are not an attribute, such as the header of the peer inside a veth's attributes.
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

// seal writes length, flags and sequence number, and returns the message as it is sent.
func (m *Message) seal(seq uint32, flags uint16) []byte {
	native.PutUint32(m.data, uint32(len(m.data)))
	native.PutUint16(m.data[6:], native.Uint16(m.data[6:])|flags)
	native.PutUint32(m.data[8:], seq)
	return m.data
}

// split calls visit with each message of a datagram.
func split(data []byte, visit func(h header, body []byte) error) error {
	for len(data) >= unix.NLMSG_HDRLEN {
		size := native.Uint32(data)
		if size < unix.NLMSG_HDRLEN || uint64(size) > uint64(len(data)) {
			return fmt.Errorf("read netlink answer: message of %d bytes in %d", size, len(data))
		}

		h := header{
			kind:  native.Uint16(data[4:]),
			flags: native.Uint16(data[6:]),
			seq:   native.Uint32(data[8:]),
			port:  native.Uint32(data[12:]),
		}
		if err := visit(h, data[unix.NLMSG_HDRLEN:size]); err != nil {
			return err
		}

		data = data[min(len(data), align(int(size))):]
	}

	return nil
}

// align rounds a size up to the alignment of messages and attributes.
func align(size int) int { return (size + 3) &^ 3 }
