// Package apiproxy is the host's way to the API server of a cluster: a process on the host that listens on
// 127.0.0.1 and dials inside the control plane's network namespace. The host's network stays as it is.
package apiproxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/trivet-node/trivet/e2e/cluster/address"
	"github.com/trivet-node/trivet/internal/namespace"
)

// Verb is the verb by which the program runs itself as a proxy: Verb STATE-DIRECTORY PORT.
const Verb = "api-proxy"

// FreePort is a port of 127.0.0.1 that nothing listens on.
func FreePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

// Start starts the proxy of the cluster with this state directory, unless it runs. One that listens on
// another port is an earlier cluster's and ends.
func Start(state string, port int, workDir, logFile string) error {
	running, err := find(state)
	if err != nil {
		return err
	}

	for _, p := range running {
		if p.port == strconv.Itoa(port) {
			return nil
		}
	}

	if err := Stop(state); err != nil {
		return err
	}

	self, err := os.Executable()
	if err != nil {
		return err
	}

	log, err := os.OpenFile(logFile, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()

	cmd := exec.Command(self, Verb, state, strconv.Itoa(port))
	cmd.Dir = workDir
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return err
	}

	return cmd.Process.Release()
}

// Stop ends all proxies of the cluster with this state directory.
func Stop(state string) error {
	running, err := find(state)
	if err != nil {
		return err
	}

	for _, p := range running {
		if err := syscall.Kill(p.pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
			return err
		}
	}

	return nil
}

// process is a proxy that runs.
type process struct {
	pid  int
	port string
}

// find finds proxies by their command lines: a PID in a file could be missing after a kill, or name another
// process.
func find(state string) ([]process, error) {
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return nil, err
	}

	var found []process
	for _, f := range files {
		argv, err := os.ReadFile(f)
		if err != nil {
			// It has ended.
			continue
		}

		port, isProxy := portOf(string(argv), state)
		if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(f))); err == nil && isProxy {
			found = append(found, process{pid, port})
		}
	}

	return found, nil
}

// portOf reads the port from a command line (proc(5): each argument ends with a zero byte), if it is that of
// a proxy of this cluster.
func portOf(cmdline, state string) (port string, isProxy bool) {
	_, port, isProxy = strings.Cut(cmdline, "\x00"+Verb+"\x00"+state+"\x00")
	return strings.TrimSuffix(port, "\x00"), isProxy
}

// Serve is the proxy process. initPid returns the PID of the control plane's PID 1. It ends with ctx.
func Serve(ctx context.Context, port string, initPid func() int, log *slog.Logger) error {
	l, err := net.Listen("tcp", "127.0.0.1:"+port)
	if err != nil {
		return err
	}

	context.AfterFunc(ctx, func() { l.Close() })
	for {
		conn, err := l.Accept()
		if err != nil {
			return errors.Join(ctx.Err(), err)
		}

		go func() {
			if err := relay(conn, initPid()); err != nil {
				log.Debug("connection ended", "err", err)
			}
		}()
	}
}

func relay(client net.Conn, initPid int) error {
	defer client.Close()

	var server net.Conn
	err := namespace.Do(func() (err error) {
		apiServer := &net.TCPAddr{IP: address.ControlPlane.AsSlice(), Port: address.APIPort}
		server, err = net.DialTCP("tcp4", nil, apiServer)
		return err
	}, fmt.Sprintf("/proc/%d/ns/net", initPid))
	if err != nil {
		return err
	}
	defer server.Close()

	done := make(chan error, 2)
	pipe := func(to, from net.Conn) {
		_, err := io.Copy(to, from)
		_ = to.(*net.TCPConn).CloseWrite()
		done <- err
	}

	go pipe(server, client)
	go pipe(client, server)
	return errors.Join(<-done, <-done)
}
