package unit

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	systemd1 "github.com/coreos/go-systemd/v22/dbus"
	"github.com/godbus/dbus/v5"
)

// fakeSystemd is a small systemd that speaks D-Bus. It answers every call, and ends each job at once unless
// its unit is slow.
type fakeSystemd struct {
	t *testing.T

	// mu guards what follows.
	mu    sync.Mutex
	calls []string
	conns []*server
	jobs  int
	// slow are the units whose jobs do not end, and fail the errors of methods.
	slow []string
	fail map[string]string
	// silent: calls are not answered.
	silent bool
}

// server is the far end of one connection.
type server struct {
	net.Conn
	serial uint32
}

func newSystemd(t *testing.T) (*fakeSystemd, *Slices) {
	t.Helper()
	s := &fakeSystemd{t: t, fail: map[string]string{}}
	slices := &Slices{connect: s.connect}
	t.Cleanup(slices.Close)
	return s, slices
}

func (s *fakeSystemd) connect() (*systemd1.Conn, error) {
	return systemd1.NewConnection(func() (*dbus.Conn, error) {
		near, far := net.Pipe()
		go s.serve(&server{Conn: far})

		conn, err := dbus.NewConn(near)
		if err != nil {
			return nil, err
		}
		return conn, conn.Auth([]dbus.Auth{dbus.AuthExternal(strconv.Itoa(os.Getuid()))})
	})
}

// restart closes all connections, as a restart of systemd does.
func (s *fakeSystemd) restart() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.conns {
		c.Close()
	}
	s.conns = nil
}

func (s *fakeSystemd) connections() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.conns)
}

// answerNothing lets all calls wait, or ends that.
func (s *fakeSystemd) answerNothing(silent bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.silent = silent
}

// called returns the calls of units, such as "StopUnit a.slice".
func (s *fakeSystemd) called() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.calls)
}

// serve lets a client in (D-Bus specification, "Authentication Protocol"), and answers its calls.
func (s *fakeSystemd) serve(c *server) {
	in := bufio.NewReader(c)
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return
		}

		answer := "OK 0123456789abcdef0123456789abcdef\r\n"
		switch line = strings.Trim(line, "\x00\r\n"); line {
		case "BEGIN":
			s.answerCalls(c, in)
			return
		case "AUTH":
			answer = "REJECTED EXTERNAL\r\n"
		case "AUTH EXTERNAL":
			answer = "DATA\r\n"
		}

		if _, err := c.Write([]byte(answer)); err != nil {
			return
		}
	}
}

func (s *fakeSystemd) answerCalls(c *server, in *bufio.Reader) {
	s.mu.Lock()
	s.conns = append(s.conns, c)
	s.mu.Unlock()

	for {
		call, err := dbus.DecodeMessage(in)
		if err != nil {
			return
		}

		s.answer(c, call)
	}
}

func (s *fakeSystemd) answer(c *server, call *dbus.Message) {
	method, _ := call.Headers[dbus.FieldMember].Value().(string)
	s.mu.Lock()
	defer s.mu.Unlock()

	var unit string
	if len(call.Body) > 0 {
		unit, _ = call.Body[0].(string)
	}
	if strings.HasSuffix(method, "Unit") {
		s.calls = append(s.calls, method+" "+unit)
	}

	if s.silent {
		return
	}

	if name := s.fail[method]; name != "" {
		c.send(dbus.TypeError, map[dbus.HeaderField]any{
			dbus.FieldReplySerial: call.Serial(),
			dbus.FieldErrorName:   "org.freedesktop.systemd1." + name,
		})
		return
	}

	reply := map[dbus.HeaderField]any{dbus.FieldReplySerial: call.Serial()}
	if !slices.Contains([]string{"StartUnit", "StopUnit", "StartTransientUnit"}, method) {
		c.send(dbus.TypeMethodReply, reply)
		return
	}

	s.jobs++
	job := dbus.ObjectPath(fmt.Sprintf("/org/freedesktop/systemd1/job/%d", s.jobs))
	c.send(dbus.TypeMethodReply, reply, job)
	if slices.Contains(s.slow, unit) {
		return
	}

	for _, each := range s.conns {
		each.send(dbus.TypeSignal, map[dbus.HeaderField]any{
			dbus.FieldPath:      dbus.ObjectPath("/org/freedesktop/systemd1"),
			dbus.FieldInterface: "org.freedesktop.systemd1.Manager",
			dbus.FieldMember:    "JobRemoved",
		}, uint32(s.jobs), job, unit, "done")
	}
}

// send sends a message. A client that has gone away does not matter.
func (c *server) send(kind dbus.Type, headers map[dbus.HeaderField]any, body ...any) {
	c.serial++
	m := &dbus.Message{Type: kind, Headers: map[dbus.HeaderField]dbus.Variant{}, Body: body}
	for field, value := range headers {
		m.Headers[field] = dbus.MakeVariant(value)
	}
	if len(body) > 0 {
		m.Headers[dbus.FieldSignature] = dbus.MakeVariant(dbus.SignatureOf(body...))
	}

	// The library numbers only what it sends itself: the serial number is at byte 8 of the header.
	var out bytes.Buffer
	if m.EncodeTo(&out, binary.LittleEndian) != nil {
		return
	}

	binary.LittleEndian.PutUint32(out.Bytes()[8:], c.serial)
	_, _ = c.Write(out.Bytes())
}
