package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"

	"github.com/trivet-node/trivet/internal/durable"
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

// startProxy starts a process on the host that listens on 127.0.0.1:port and dials the API server inside the control plane's network
// namespace: the host's network stays as it is.
func (c *Cluster) startProxy(port int) error {
	if c.proxyPid() != 0 {
		return nil
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	log, err := os.OpenFile(c.path("machines", controlPlaneName, "log", "api-proxy.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(self, ProxyVerb, c.Dir, strconv.Itoa(port))
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return err
	}
	return durable.WriteVolatile(c.path("proxy.pid"), []byte(strconv.Itoa(cmd.Process.Pid)), 0o644)
}

// proxyPid is 0 unless the process of that PID is this cluster's proxy.
func (c *Cluster) proxyPid() int {
	data, err := os.ReadFile(c.path("proxy.pid"))
	if err != nil {
		return 0
	}
	pid, err := strconv.Atoi(string(data))
	if err != nil {
		return 0
	}
	argv, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil || !strings.Contains(string(argv), ProxyVerb+"\x00"+c.Dir+"\x00") {
		return 0
	}
	return pid
}

func (c *Cluster) stopProxy() error {
	if pid := c.proxyPid(); pid != 0 {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
			return err
		}
	}
	err := os.Remove(c.path("proxy.pid"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
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
