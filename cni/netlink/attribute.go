package netlink

import (
	"bytes"

	"golang.org/x/sys/unix"
)

// Attributes calls visit with type and value of each attribute in data. It stops at a malformed one, as the
// kernel's own parser does. The flags of the type (NLA_F_NESTED, NLA_F_NET_BYTEORDER) are removed.
func Attributes(data []byte, visit func(kind uint16, value []byte)) {
	for len(data) >= unix.SizeofRtAttr {
		size := int(native.Uint16(data))
		if size < unix.SizeofRtAttr || size > len(data) {
			return
		}

		kind := native.Uint16(data[2:]) &^ (unix.NLA_F_NESTED | unix.NLA_F_NET_BYTEORDER)
		visit(kind, data[unix.SizeofRtAttr:size])
		data = data[min(len(data), align(size)):]
	}
}

// Text returns the value of a string attribute, without its terminating zero.
func Text(value []byte) string {
	text, _, _ := bytes.Cut(value, []byte{0})
	return string(text)
}
