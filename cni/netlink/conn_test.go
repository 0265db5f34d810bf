package netlink

import (
	"errors"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// refusal is a struct nlmsgerr with the header of the request behind it.
func refusal(errno unix.Errno) string {
	body := native.AppendUint32(nil, uint32(-int32(errno)))
	return string(append(body, make([]byte, unix.NLMSG_HDRLEN)...))
}

func TestABatchHasAResultForEachMessage(t *testing.T) {
	// Of what succeeds, nothing is told before the end.
	c := kernel(t, []reply{
		{kind: unix.NLMSG_ERROR, body: refusal(unix.EEXIST), to: 1},
		{kind: unix.NLMSG_ERROR, body: refusal(unix.ENODEV), to: 2},
	})

	messages := []*Message{
		NewMessage("create one", unix.RTM_NEWLINK, Create|Excl, nil),
		NewMessage("create two", unix.RTM_NEWLINK, Create|Excl, nil),
		NewMessage("delete three", unix.RTM_DELLINK, 0, nil),
	}
	errs, err := c.Do(messages...)
	if err != nil || len(errs) != 3 {
		t.Fatal(errs, err)
	}

	if errs[0] != nil || !IsExist(errs[1]) || !IsNotExist(errs[2]) ||
		errs[1].Error() != "create two: file exists" {
		t.Errorf("%v", errs)
	}

	for i, m := range messages {
		isAsked := native.Uint16(m.data[6:])&unix.NLM_F_ACK != 0
		if isLast := i == len(messages)-1; isAsked != isLast {
			t.Errorf("%s asks for an answer: %v", m.op, isAsked)
		}
	}
}

func TestEachRequestOfABatchHasItsObject(t *testing.T) {
	c := kernel(t, []reply{
		{kind: unix.RTM_NEWLINK, body: "one!", to: 0},
		{kind: unix.NLMSG_ERROR, body: refusal(unix.ENODEV), to: 1},
		{kind: unix.RTM_NEWLINK, body: "late", to: 7},
		{kind: unix.RTM_NEWLINK, body: "tre!", to: 2},
		{kind: unix.NLMSG_ERROR, body: refusal(0), to: 2},
	})

	seen := map[int]string{}
	errs, err := c.Ask([]*Message{
		NewMessage("get one", unix.RTM_GETLINK, 0, nil),
		NewMessage("get two", unix.RTM_GETLINK, 0, nil),
		NewMessage("get three", unix.RTM_GETLINK, 0, nil),
	}, func(i int, _ uint16, body []byte) { seen[i] = string(body) })

	if err != nil || len(errs) != 3 || errs[0] != nil || !IsNotExist(errs[1]) || errs[2] != nil {
		t.Errorf("%v, %v", errs, err)
	}
	if len(seen) != 2 || seen[0] != "one!" || seen[2] != "tre!" {
		t.Errorf("%v", seen)
	}
}

func TestABatchThatHasToSucceedReturnsAllErrors(t *testing.T) {
	c := kernel(t, []reply{
		{kind: unix.NLMSG_ERROR, body: refusal(unix.EPERM), to: 0},
		{kind: unix.NLMSG_ERROR, body: refusal(unix.ENODEV), to: 1},
	})
	err := c.Must(NewMessage("one", unix.RTM_NEWLINK, 0, nil), NewMessage("two", unix.RTM_NEWLINK, 0, nil))
	if !errors.Is(err, unix.EPERM) || !errors.Is(err, unix.ENODEV) {
		t.Error(err)
	}
}

// An answer to an earlier request, which came too late, is not an answer to this one.
func TestAnswersToOtherRequestsAreSkipped(t *testing.T) {
	c := kernel(t, []reply{
		{kind: unix.RTM_NEWLINK, body: "late", to: 7},
		{kind: unix.RTM_NEWLINK, body: "mine"},
		{kind: unix.NLMSG_ERROR, body: refusal(0)},
	})

	var seen []string
	err := c.Get(NewMessage("get", unix.RTM_GETLINK, 0, nil), func(_ uint16, body []byte) {
		seen = append(seen, string(body))
	})
	if err != nil || !slices.Equal(seen, []string{"mine"}) {
		t.Errorf("%q, %v", seen, err)
	}
}

func TestARefusalCarriesTheKernelsReason(t *testing.T) {
	const flags = unix.NLM_F_ACK_TLVS
	reason := NewMessage("", 0, 0, nil).String(
		unix.NLMSGERR_ATTR_MSG,
		"no such thing",
	).data[unix.NLMSG_HDRLEN:]

	errno := []byte(refusal(unix.EINVAL))[:errnoSize]
	request := NewMessage("", unix.RTM_NEWLINK, 0, []byte("a body of 20 bytes..")).seal(1, 0)

	for name, c := range map[string]struct {
		head header
		body []byte
		want string
	}{
		"with the request": {
			header{kind: unix.NLMSG_ERROR, flags: flags},
			slices.Concat(errno, request, reason),
			"do: invalid argument (no such thing)",
		},
		"with its header": {
			header{kind: unix.NLMSG_ERROR, flags: flags | unix.NLM_F_CAPPED},
			slices.Concat(errno, request[:unix.NLMSG_HDRLEN], reason),
			"do: invalid argument (no such thing)",
		},
		"at the end of a list": {
			header{kind: unix.NLMSG_DONE, flags: flags},
			slices.Concat(errno, reason),
			"do: invalid argument (no such thing)",
		},
		"without a reason": {
			header{kind: unix.NLMSG_ERROR},
			slices.Concat(errno, request),
			"do: invalid argument",
		},
		"cut off": {
			header{kind: unix.NLMSG_ERROR, flags: flags},
			errno,
			"do: invalid argument",
		},
		"of nothing": {
			header{kind: unix.NLMSG_ERROR},
			nil,
			"do: bad message",
		},
	} {
		err := parseAnswer("do", c.head, c.body)
		if err == nil || err.Error() != c.want {
			t.Errorf("%s: %v, want %s", name, err, c.want)
		}
	}
}

func TestAnErrorIsItsErrno(t *testing.T) {
	for errno, notExist := range map[unix.Errno]bool{
		unix.ENODEV:        true,
		unix.ENOENT:        true,
		unix.ESRCH:         true,
		unix.EADDRNOTAVAIL: true,
		unix.EEXIST:        false,
		unix.EPERM:         false,
	} {
		err := errors.Join(&Error{Op: "delete thing", Errno: errno})
		if IsNotExist(err) != notExist || !errors.Is(err, errno) {
			t.Errorf("%v: %v", errno, err)
		}
	}

	if IsNotExist(nil) || IsExist(nil) {
		t.Error("success means that something does not exist, or exists")
	}
}

func TestAttributesAreReadAsTheyAreWritten(t *testing.T) {
	m := NewMessage("", 0, 0, []byte("head"))
	m.Uint8(1, 7).String(2, "text").Nest(3).Uint32(4, 0xabcd).Raw([]byte("raw!")).End().Bytes(5, nil)

	var kinds []uint16
	values := map[uint16]string{}
	Attributes(m.data[unix.NLMSG_HDRLEN+4:], func(kind uint16, value []byte) {
		kinds = append(kinds, kind)
		values[kind] = string(value)
	})
	if !slices.Equal(kinds, []uint16{1, 2, 3, 5}) || values[1] != "\x07" ||
		Text([]byte(values[2])) != "text" {
		t.Errorf("kinds %v, values %v", kinds, values)
	}

	Attributes([]byte(values[3]), func(kind uint16, value []byte) {
		if kind == 4 && native.Uint32(value) != 0xabcd {
			t.Errorf("nested %x", value)
		}
	})
}

func FuzzAttributes(f *testing.F) {
	f.Add([]byte{8, 0, 1, 0x80, 1, 2, 3, 4, 5, 0, 2, 0, 9})
	f.Add([]byte{3, 0, 1, 0})
	f.Fuzz(func(t *testing.T, data []byte) {
		seen := 0
		Attributes(data, func(kind uint16, value []byte) {
			seen += unix.SizeofRtAttr + len(value)
			if kind&unix.NLA_F_NESTED != 0 {
				t.Errorf("kind %x has a flag", kind)
			}
		})
		if seen > len(data) {
			t.Errorf("%d bytes of %d", seen, len(data))
		}
	})
}

func FuzzSplit(f *testing.F) {
	f.Add(NewMessage("", 1, 0, []byte("body")).seal(1, 0))
	f.Add([]byte{17, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, data []byte) {
		err := split(data, func(h header, body []byte) error {
			if parseAnswer("x", h, body) == nil && len(body) < errnoSize {
				t.Errorf("an answer of %d bytes is success", len(body))
			}

			return nil
		})
		if err == nil && len(data) >= unix.NLMSG_HDRLEN && native.Uint32(data) > uint32(len(data)) {
			t.Error("a message that is longer than the datagram")
		}
	})
}
