// Package supervisor reports to the service manager that has started the process (sd_notify(3)): that it is
// ready, and that it is alive. A process that was started in another way reports to nobody.
package supervisor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/trivet-node/trivet/internal/retry"
)

// Supervisor is a service manager. The zero value is nobody, and all methods may be called at the same time.
type Supervisor struct {
	// socket is where it listens, with @ before a name in the abstract namespace; empty: nowhere.
	socket string

	// patience is after how long without a sign of life it ends the process; 0: it waits for none.
	patience time.Duration
}

// variables of the environment by which systemd says where it listens.
const (
	socketVariable   = "NOTIFY_SOCKET"
	patienceVariable = "WATCHDOG_USEC"
	processVariable  = "WATCHDOG_PID"
)

// FromEnvironment returns the one that the environment names, and takes it out of the environment: a child
// would report in this process's name, and an OCI runtime would have containers do so. An environment that
// cannot be understood names nobody, and is an error.
func FromEnvironment() (s Supervisor, err error) {
	s.socket = os.Getenv(socketVariable)
	patience, pid := os.Getenv(patienceVariable), os.Getenv(processVariable)
	for _, name := range []string{socketVariable, patienceVariable, processVariable} {
		err = errors.Join(err, os.Unsetenv(name))
	}

	if s.socket == "" || err != nil {
		return Supervisor{}, err
	}
	if !strings.HasPrefix(s.socket, "/") && !strings.HasPrefix(s.socket, "@") {
		return Supervisor{}, fmt.Errorf("%s %q is not the path of a socket", socketVariable, s.socket)
	}

	// A watchdog is for the process that it names.
	if patience == "" || pid != "" && pid != strconv.Itoa(os.Getpid()) {
		return s, nil
	}

	micros, err := strconv.ParseInt(patience, 10, 64)
	if err != nil || micros <= 0 || micros > int64(maxPatience/time.Microsecond) {
		return s, fmt.Errorf("%s %q is not a number of microseconds", patienceVariable, patience)
	}

	s.patience = time.Duration(micros) * time.Microsecond
	return s, nil
}

// maxPatience is longer than anybody waits, and no multiple of it overflows.
const maxPatience = 365 * 24 * time.Hour

// Ready says that the process serves. status is a line for people. If it is not heard, that is logged: the
// process can do no more about it.
func (s Supervisor) Ready(log *slog.Logger, status string) {
	s.tell(log, "READY=1", "STATUS="+oneLine(status))
}

// Alive says that the process is alive. It is called by what would not get there if it were not.
func (s Supervisor) Alive(log *slog.Logger) {
	if s.patience > 0 {
		s.tell(log, "WATCHDOG=1")
	}
}

// Watch says that the process is alive for as long as check, which goes the way that work goes, returns nil
// in time. It returns when ctx ends. What check fails with is logged once, until it succeeds again.
func (s Supervisor) Watch(ctx context.Context, log *slog.Logger, check func(context.Context) error) {
	if s.patience == 0 {
		return
	}

	failing := false
	for range retry.Every(ctx, s.patience/4) {
		err := s.checkOnce(ctx, check)
		switch {
		case err == nil:
			s.Alive(log)
		case !failing && ctx.Err() == nil:
			log.Error("the process does not do its work, and is ended unless it goes on", "err", err)
			s.tell(log, "STATUS="+oneLine(err.Error()))
		}

		failing = err != nil
	}
}

// checkOnce gives the check half of the time that there is.
func (s Supervisor) checkOnce(ctx context.Context, check func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, s.patience/2)
	defer cancel()
	return check(ctx)
}

// oneLine keeps a text from being taken for further assignments.
func oneLine(text string) string { return strings.Join(strings.Fields(text), " ") }

// tell sends assignments, and logs it when they do not arrive.
func (s Supervisor) tell(log *slog.Logger, assignments ...string) {
	if err := s.send(assignments...); err != nil {
		log.Warn("the service manager does not hear", "message", assignments[0], "err", err)
	}
}

// send sends assignments in one datagram.
func (s Supervisor) send(assignments ...string) error {
	if s.socket == "" {
		return nil
	}

	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: s.socket, Net: "unixgram"})
	if err != nil {
		return err
	}
	defer conn.Close()

	_, err = conn.Write([]byte(strings.Join(assignments, "\n")))
	return err
}
