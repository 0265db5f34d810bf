package netlink

import (
	"errors"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// reply is a message of the pretended kernel.
type reply struct {
	kind, flags uint16
	body        string
	// to is the number of the message in the batch that it answers.
	to uint32
}

func done(errno int32) reply {
	return reply{kind: unix.NLMSG_DONE, body: string(native.AppendUint32(nil, uint32(-errno)))}
}

// kernel answers each request with the next of the lists; a real one marks a list as interrupted only when it
// is lucky with the time.
func kernel(t *testing.T, lists ...[]reply) *Conn {
	t.Helper()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}

	answered := make(chan struct{})
	go func() {
		defer close(answered)

		request := make([]byte, 4096)
		for _, list := range lists {
			if n, _, err := unix.Recvfrom(pair[1], request, 0); err != nil || n < unix.NLMSG_HDRLEN {
				// The test has ended.
				return
			}

			for _, r := range list {
				seq := native.Uint32(request[8:]) + r.to
				m := NewMessage("", r.kind, r.flags, []byte(r.body)).seal(seq, 0)
				if _, err := unix.Write(pair[1], m); err != nil {
					return
				}
			}
		}
	}()

	c := newConn(pair[0])
	t.Cleanup(func() {
		_ = c.Close()
		<-answered
		_ = unix.Close(pair[1])
	})

	return c
}

func list(c *Conn) (seen []string, err error) {
	err = c.Dump(
		NewMessage("list things", unix.RTM_GETLINK, 0, nil),
		func(_ uint16, body []byte) { seen = append(seen, string(body)) },
	)
	return seen, err
}

var (
	interrupted = []reply{
		{kind: unix.RTM_NEWLINK, flags: unix.NLM_F_MULTI, body: "old!"},
		{kind: unix.RTM_NEWLINK, flags: unix.NLM_F_MULTI | unix.NLM_F_DUMP_INTR, body: "half"},
		done(0),
	}
	whole = []reply{
		{kind: unix.RTM_NEWLINK, flags: unix.NLM_F_MULTI, body: "one!"},
		{kind: unix.RTM_NEWLINK, flags: unix.NLM_F_MULTI, body: "two!"},
		done(0),
	}
)

func TestListThatChangedMeanwhileIsReadAgain(t *testing.T) {
	seen, err := list(kernel(t, interrupted, interrupted, whole))
	if err != nil || !slices.Equal(seen, []string{"one!", "two!"}) {
		t.Errorf("%q, %v", seen, err)
	}
}

func TestListThatKeepsChangingIsAnError(t *testing.T) {
	seen, err := list(kernel(t, slices.Repeat([][]reply{interrupted}, dumpTries)...))
	if !errors.Is(err, ErrChanging) || len(seen) > 0 {
		t.Errorf("%q, %v", seen, err)
	}
}

func TestListThatEndsWithAnErrorIsNone(t *testing.T) {
	seen, err := list(kernel(t, []reply{whole[0], done(int32(unix.ENOMEM))}))
	if !errors.Is(err, unix.ENOMEM) || len(seen) > 0 {
		t.Errorf("%q, %v", seen, err)
	}
}
