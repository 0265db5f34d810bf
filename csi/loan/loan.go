// Package loan hands what volumes hold to programs of the node that are no pods: to read it as it is at a
// moment, or to fill a new volume. A program gets the open root directory, or the open file of a raw block
// volume, over a unix socket of the driver, and has it for as long as its connection lasts. So nothing is
// left of a program that was killed: neither the snapshot that it read, nor a volume that it has not filled.
// What was left of a driver that was killed is removed when it starts again, see volume.Store.
//
// Both sides send lines of JSON: a request, a reply with the descriptor, done, and a last reply.
package loan

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/csi/volume"
)

// Socket returns the path of the driver's socket for loans.
func Socket(stateDir string) string { return filepath.Join(stateDir, "loans.sock") }

// request asks for one of both.
type request struct {
	Read string          `json:"read,omitempty"` // ID of a volume or snapshot
	Make *volume.Request `json:"make,omitempty"`
}

// reply is the answer to a request, and to done.
type reply struct {
	Spec  volume.Spec `json:"spec"`
	Error string      `json:"error,omitempty"`

	// There says that a volume that was asked for is there already.
	There bool `json:"there,omitempty"`
}

// done says that the content was read, or written.
type done struct {
	Done bool `json:"done"`
}

// maxMessage bounds a line, in bytes.
const maxMessage = 64 << 10

// peer is the other side of a connection.
type peer struct {
	conn    *net.UnixConn
	pending []byte // received, and not yet looked at
}

// send sends a line, with an open file if that is not nil.
func (p *peer) send(message any, f *os.File) error {
	data, err := json.Marshal(message)
	if err != nil {
		return err
	}

	var rights []byte
	if f != nil {
		rights = unix.UnixRights(int(f.Fd()))
	}
	_, _, err = p.conn.WriteMsgUnix(append(data, '\n'), rights, nil)
	return err
}

// receive receives a line, and the open file that came with it, which is nil if none did. io.EOF says that
// the other side has gone.
func (p *peer) receive(message any) (f *os.File, err error) {
	for {
		line, rest, whole := bytes.Cut(p.pending, []byte{'\n'})
		if whole {
			p.pending = rest
			return f, json.Unmarshal(line, message)
		}
		if len(p.pending) > maxMessage {
			return nil, errors.Join(fmt.Errorf("a line of more than %d bytes", maxMessage), closeFile(f))
		}

		next, err := p.read()
		if err != nil {
			return nil, errors.Join(err, closeFile(f))
		}
		if next != nil {
			err = closeFile(f)
			f = next
		}
		if err != nil {
			return nil, errors.Join(err, closeFile(f))
		}
	}
}

func closeFile(f *os.File) error {
	if f == nil {
		return nil
	}
	return f.Close()
}

// read receives a part of a line.
func (p *peer) read() (*os.File, error) {
	data, rights := make([]byte, 4<<10), make([]byte, unix.CmsgSpace(4))
	n, control, _, _, err := p.conn.ReadMsgUnix(data, rights)
	if err == nil && n == 0 {
		err = io.EOF
	}
	if err != nil {
		return nil, err
	}

	p.pending = append(p.pending, data[:n]...)
	return fileIn(rights[:control])
}

// fileIn returns the open file that a control message brings.
func fileIn(control []byte) (*os.File, error) {
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil || len(messages) == 0 {
		return nil, err
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) == 0 {
		return nil, err
	}
	return os.NewFile(uintptr(fds[0]), "volume"), nil
}
