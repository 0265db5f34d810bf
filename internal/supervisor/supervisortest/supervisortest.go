// Package supervisortest listens in systemd's place to what a process reports to its service manager.
package supervisortest

import (
	"net"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/trivet-node/trivet/internal/testenv"
)

// Manager is a service manager.
type Manager struct {
	tb   testing.TB
	conn *net.UnixConn
}

// New puts a manager into the environment, for what is started from now on. It waits for signs of life for as
// long as patience; 0: it wants none.
func New(t *testing.T, patience time.Duration) *Manager {
	t.Helper()
	path := filepath.Join(testenv.ShortDir(t), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })

	watchdog := ""
	if patience > 0 {
		watchdog = strconv.FormatInt(patience.Microseconds(), 10)
	}

	t.Setenv("NOTIFY_SOCKET", path)
	t.Setenv("WATCHDOG_USEC", watchdog)
	t.Setenv("WATCHDOG_PID", "")
	return &Manager{tb: t, conn: conn}
}

// patience bounds the wait for a message.
const patience = 30 * time.Second

// Next waits for the next message.
func (m *Manager) Next() string {
	m.tb.Helper()
	if err := m.conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		m.tb.Fatal(err)
	}

	message := make([]byte, 4096)
	n, err := m.conn.Read(message)
	if err != nil {
		m.tb.Fatalf("wait for a message to the service manager: %v", err)
	}

	return string(message[:n])
}

// Await waits for a message that begins with an assignment, and skips others.
func (m *Manager) Await(assignment string) string {
	m.tb.Helper()
	for {
		if message := m.Next(); strings.HasPrefix(message, assignment) {
			return message
		}
	}
}
