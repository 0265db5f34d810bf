package netlink

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Error is a request that the kernel refused.
type Error struct {
	// Op names the request: "create veth vethab12".
	Op string
	// Errno is the kernel's answer.
	Errno unix.Errno
	// Reason is the text of the kernel's extended acknowledgement, if it gave one.
	Reason string
}

func (e *Error) Error() string {
	if e.Reason != "" {
		return fmt.Sprintf("%s: %s (%s)", e.Op, e.Errno, e.Reason)
	}
	return fmt.Sprintf("%s: %s", e.Op, e.Errno)
}

// Unwrap returns the errno, for errors.Is.
func (e *Error) Unwrap() error { return e.Errno }

// IsNotExist reports whether err means that the object does not exist: deleting it again is success.
func IsNotExist(err error) bool {
	for _, target := range []error{
		unix.ENODEV,
		unix.ENOENT,
		unix.ESRCH,
		unix.EADDRNOTAVAIL,
		os.ErrNotExist,
	} {
		if errors.Is(err, target) {
			return true
		}
	}

	return false
}

// IsExist reports whether err means that the object exists already.
func IsExist(err error) bool { return errors.Is(err, unix.EEXIST) }

// errnoSize is the size of the errno that begins an acknowledgement and the end of a list.
const errnoSize = 4

// parseAnswer reads a struct nlmsgerr, or what ends a list: an errno, and the extended acknowledgement right
// behind it. It returns nil for success.
func parseAnswer(op string, h header, body []byte) error {
	if len(body) < errnoSize {
		return &Error{Op: op, Errno: unix.EBADMSG}
	}

	errno := -int32(native.Uint32(body))
	if errno == 0 {
		return nil
	}

	e := &Error{Op: op, Errno: unix.Errno(errno)}
	Attributes(acknowledgement(h, body), func(kind uint16, value []byte) {
		if kind == unix.NLMSGERR_ATTR_MSG {
			e.Reason = Text(value)
		}
	})

	return e
}

// acknowledgement returns the attributes of the extended acknowledgement. In a struct nlmsgerr they come
// behind the header of the request, and behind its body unless NETLINK_CAP_ACK is set.
func acknowledgement(h header, body []byte) []byte {
	if h.flags&unix.NLM_F_ACK_TLVS == 0 {
		return nil
	}

	skip := errnoSize
	if h.kind == unix.NLMSG_ERROR {
		skip += unix.NLMSG_HDRLEN
	}
	if len(body) < skip {
		return nil
	}

	if h.kind == unix.NLMSG_ERROR && h.flags&unix.NLM_F_CAPPED == 0 {
		request := max(int(native.Uint32(body[errnoSize:])), unix.NLMSG_HDRLEN)
		skip = min(len(body), errnoSize+align(request))
	}

	return body[skip:]
}
