package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/trivet-node/trivet/internal/namespace"
)

// ProxyVerb is the verb by which the program runs itself as the host's way to the API server.
const ProxyVerb = "api-proxy"

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

// startProxy starts a process on the host that listens on 127.0.0.1:port and dials the API server inside the
// control plane's network namespace: the host's network stays as it is. One that listens elsewhere is an
// earlier cluster's.
func (c *Cluster) startProxy(port int) error {
	running, err := c.proxies()
	if err != nil || slices.Contains(slices.Collect(maps.Values(running)), strconv.Itoa(port)) {
		return err
	}
	if err := c.stopProxy(); err != nil {
		return err
	}

	self, err := os.Executable()
	if err != nil {
		return err
	}

	log, err := os.OpenFile(
		c.path("machines", controlPlaneName, "log", "api-proxy.log"),
		os.O_CREATE|os.O_APPEND|os.O_WRONLY,
		0o644,
	)
	if err != nil {
		return err
	}
	defer log.Close()

	cmd := exec.Command(self, ProxyVerb, c.Dir, strconv.Itoa(port))
	cmd.Dir = c.controlPlane().Dir
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return err
	}

	return cmd.Process.Release()
}

// proxies finds the proxies of this directory's clusters, PID -> port, by their command lines: a PID in a
// file could be missing after a kill, or name another process.
func (c *Cluster) proxies() (map[int]string, error) {
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return nil, err
	}

	out := map[int]string{}
	for _, f := range files {
		argv, err := os.ReadFile(f)
		if err != nil {
			// it has ended
			continue
		}

		_, port, ours := strings.Cut(string(argv), "\x00"+ProxyVerb+"\x00"+c.Dir+"\x00")
		if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(f))); err == nil && ours {
			out[pid] = strings.TrimSuffix(port, "\x00")
		}
	}

	return out, nil
}

func (c *Cluster) stopProxy() error {
	running, err := c.proxies()
	if err != nil {
		return err
	}
	for pid := range running {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
			return err
		}
	}
	return nil
}

// ServeProxy is the proxy process: it ends with ctx.
func (c *Cluster) ServeProxy(ctx context.Context, port string, log *slog.Logger) error {
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
			if err := c.relay(conn); err != nil {
				log.Debug("connection ended", "err", err)
			}
		}()
	}
}

func (c *Cluster) relay(client net.Conn) error {
	defer client.Close()

	var server net.Conn
	err := namespace.Do(func() (err error) {
		server, err = net.DialTCP("tcp4", nil, &net.TCPAddr{IP: gateway.AsSlice(), Port: apiPort})
		return err
	}, fmt.Sprintf("/proc/%d/ns/net", c.controlPlane().Pid()))
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
