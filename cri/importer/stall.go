package importer

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"
)

// sender reads what a client sends, and gives up on one that stalls.
type sender struct {
	conn *http.ResponseController
	from *bufio.Reader
}

// begin waits for the first byte, or the end of what is empty.
func (s *sender) begin() error {
	_, err := s.from.Peek(1)
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// Read reads what the client sends within the time that it has.
func (s *sender) Read(p []byte) (int, error) {
	if err := s.conn.SetReadDeadline(time.Now().Add(stallTimeout)); err != nil {
		return 0, err
	}

	n, err := s.from.Read(p)

	// From the end of the body on, the connection is read only to notice that the client is gone.
	if errors.Is(err, io.EOF) {
		if err := s.conn.SetReadDeadline(time.Time{}); err != nil {
			return n, err
		}

		return n, io.EOF
	}

	return n, stalled(err, "sent")
}

// receiver writes to a client, gives up on one that stalls, and notices whether something was written.
type receiver struct {
	conn    *http.ResponseController
	to      io.Writer
	written bool
}

// Write writes what the client takes within the time that it has.
func (r *receiver) Write(p []byte) (int, error) {
	r.written = true
	if err := r.conn.SetWriteDeadline(time.Now().Add(stallTimeout)); err != nil {
		return 0, err
	}
	n, err := r.to.Write(p)
	return n, stalled(err, "taken")
}

// stalled says of an error that the client has let its time pass, if that is so.
func stalled(err error, what string) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return fmt.Errorf("the client has %s nothing for %v: %w", what, stallTimeout, err)
	}
	return err
}
