package probe

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/trivet-node/trivet/node/runtime"
)

// errUnknown: the probe could not be asked at all (the runtime is away); that says nothing about the
// container.
var errUnknown = errors.New("probe could not run")

// warning is an answer that counts as healthy and is worth telling.
type warning struct{ text string }

func (w *warning) Error() string { return w.text }

const maxBody = 10 << 10

// ask runs one probe; nil is healthy.
func ask(ctx context.Context, exec Exec, p *v1.Probe, pod *v1.Pod, c *v1.Container, id, ip string) error {
	timeout := time.Duration(orDefault(p.TimeoutSeconds, 1)) * time.Second
	switch {
	case p.Exec != nil:
		return askExec(ctx, exec, id, p.Exec.Command, timeout)
	case p.HTTPGet != nil:
		ctx, cancel := context.WithTimeout(ctx, timeout)
		defer cancel()

		body, err := HTTPGet(ctx, p.HTTPGet, c, ip, "kube-probe/1.37")
		if errors.Is(err, ErrRedirected) {
			return &warning{"Probe terminated redirects, Response body: " + body}
		}

		return err

	case p.TCPSocket != nil:
		return askTCP(ctx, p.TCPSocket, c, ip, timeout)
	case p.GRPC != nil:
		return askGRPC(ctx, p.GRPC, ip, timeout)
	}

	return nil
}

func askExec(ctx context.Context, exec Exec, id string, command []string, timeout time.Duration) error {
	out, code, err := exec.ExecSync(ctx, id, command, timeout)
	switch {
	case errors.Is(err, runtime.ErrTimeout):
		return fmt.Errorf("command timed out: %q timed out after %s", strings.Join(command, " "), timeout)
	case err != nil:
		return fmt.Errorf("%w: %w", errUnknown, err)
	case code != 0:
		return errors.New(strings.ToValidUTF8(string(out[:min(len(out), maxBody)]), "?"))
	}
	return nil
}

// Port is the number of a port that may be named after one of the container's.
func Port(port intstr.IntOrString, c *v1.Container) (int, error) {
	number := port.IntValue()
	if port.Type == intstr.String {
		for _, p := range c.Ports {
			if p.Name == port.StrVal {
				number = int(p.ContainerPort)
			}
		}
	}

	if number < 1 || number > 65535 {
		return 0, fmt.Errorf("container %s has no port %s", c.Name, port.String())
	}

	return number, nil
}

// transport makes a connection for each request and forgets it: a probe must see what a new client would see.
var transport = &http.Transport{
	DisableKeepAlives:  true,
	DisableCompression: true,
	Proxy:              nil,
	TLSClientConfig:    &tls.Config{InsecureSkipVerify: true},
}

// ErrRedirected is returned with the body of a redirect to another host: it was not followed, as that would
// ask somebody else.
var ErrRedirected = errors.New("redirected to another host")

// HTTPGet does the request of a probe or hook and returns the body's beginning. A status from 200 to 299 is a
// success, others are errors; redirects on the same host are followed.
func HTTPGet(ctx context.Context, a *v1.HTTPGetAction, c *v1.Container, ip, agent string) (string, error) {
	port, err := Port(a.Port, c)
	if err != nil {
		return "", err
	}

	host := a.Host
	if host == "" {
		host = ip
	}

	u, err := url.Parse(a.Path)
	if err != nil {
		u = &url.URL{Path: a.Path}
	}

	u.Scheme, u.Host = strings.ToLower(string(a.Scheme)), net.JoinHostPort(host, strconv.Itoa(port))
	if u.Scheme == "" {
		u.Scheme = "http"
	}
	if !strings.HasPrefix(u.Path, "/") {
		u.Path = "/" + u.Path
	}

	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return "", err
	}

	req.Header.Set("User-Agent", agent)
	req.Header.Set("Accept", "*/*")
	for _, h := range a.HTTPHeaders {
		if strings.EqualFold(h.Name, "Host") {
			req.Host = h.Value
			continue
		}

		if strings.EqualFold(h.Name, "User-Agent") || strings.EqualFold(h.Name, "Accept") {
			req.Header.Del(h.Name)
		}
		if h.Value != "" || !strings.EqualFold(h.Name, "Accept") {
			req.Header.Add(h.Name, h.Value)
		}
	}

	client := http.Client{Transport: transport, CheckRedirect: sameHost}
	resp, err := client.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()

	body, err := io.ReadAll(io.LimitReader(resp.Body, maxBody))
	if err != nil {
		return "", err
	}
	if resp.StatusCode >= 300 && resp.StatusCode < 400 {
		return string(body), ErrRedirected
	}
	if resp.StatusCode < 200 || resp.StatusCode >= 400 {
		return string(body), fmt.Errorf("HTTP probe failed with statuscode: %d", resp.StatusCode)
	}

	return string(body), nil
}

func sameHost(req *http.Request, via []*http.Request) error {
	if req.URL.Hostname() != via[0].URL.Hostname() {
		return http.ErrUseLastResponse
	}
	if len(via) >= 10 {
		return errors.New("stopped after 10 redirects")
	}
	return nil
}

func askTCP(
	ctx context.Context,
	a *v1.TCPSocketAction,
	c *v1.Container,
	ip string,
	timeout time.Duration,
) error {
	port, err := Port(a.Port, c)
	if err != nil {
		return err
	}

	host := a.Host
	if host == "" {
		host = ip
	}

	conn, err := (&net.Dialer{Timeout: timeout}).DialContext(
		ctx,
		"tcp",
		net.JoinHostPort(host, strconv.Itoa(port)),
	)
	if err != nil {
		return err
	}

	return conn.Close()
}

func askGRPC(ctx context.Context, a *v1.GRPCAction, ip string, timeout time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()

	address := net.JoinHostPort(ip, strconv.Itoa(int(a.Port)))
	service := ""
	if a.Service != nil {
		service = *a.Service
	}

	// Connected here, as grpc would tell of a refusal only in words.
	tcp, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
	if err != nil {
		return fmt.Errorf("timeout: failed to connect service %q within %v: %w", address, timeout, err)
	}
	defer tcp.Close()

	conn, err := grpc.NewClient(
		"passthrough:///"+address,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithUserAgent("kube-probe/1.37"),
		grpc.WithContextDialer(func(context.Context, string) (net.Conn, error) { return tcp, nil }),
	)
	if err != nil {
		return err
	}
	defer conn.Close()

	r, err := grpc_health_v1.NewHealthClient(conn).Check(
		ctx,
		&grpc_health_v1.HealthCheckRequest{Service: service},
	)

	switch status.Code(err) {
	case codes.OK:
	case codes.DeadlineExceeded, codes.Unavailable:
		return fmt.Errorf("timeout: failed to connect service %q within %v: %w", address, timeout, err)
	case codes.Unimplemented:
		return fmt.Errorf("error: this server does not implement the grpc health protocol "+
			"(grpc.health.v1.Health): %w", err)
	default:
		return fmt.Errorf("error: health rpc probe failed: %w", err)
	}

	if r.Status != grpc_health_v1.HealthCheckResponse_SERVING {
		return fmt.Errorf("service unhealthy (responded with %q)", r.Status)
	}

	return nil
}
