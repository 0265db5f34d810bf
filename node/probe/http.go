package probe

import (
	"cmp"
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

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// portNumber returns the number of a port, which may be given by the name of one of the container's ports.
func portNumber(port intstr.IntOrString, c *v1.Container) (int, error) {
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

// ErrRedirected is returned with the body of a redirect to another host. It was not followed: another host's
// answer says nothing about the container.
var ErrRedirected = errors.New("redirected to another host")

// HTTPGet does the request of a probe or hook and returns the body's beginning. A status from 200 to 299 is a
// success, others are errors; redirects on the same host are followed. ip is the host where the action names
// none, and agent the User-Agent where its headers do not.
func HTTPGet(ctx context.Context, a *v1.HTTPGetAction, c *v1.Container, ip, agent string) (string, error) {
	req, err := request(ctx, a, c, ip)
	if err != nil {
		return "", err
	}

	setHeaders(req, a.HTTPHeaders, agent)

	client := http.Client{Transport: transport, CheckRedirect: sameHost}
	resp, err := client.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()

	body, err := io.ReadAll(io.LimitReader(resp.Body, maxBody))
	switch {
	case err != nil:
		return "", err
	case resp.StatusCode >= 300 && resp.StatusCode < 400:
		return string(body), ErrRedirected
	case resp.StatusCode < 200 || resp.StatusCode >= 400:
		return string(body), fmt.Errorf("HTTP probe failed with statuscode: %d", resp.StatusCode)
	}

	return string(body), nil
}

// request makes the request of an action, without headers.
func request(ctx context.Context, a *v1.HTTPGetAction, c *v1.Container, ip string) (*http.Request, error) {
	port, err := portNumber(a.Port, c)
	if err != nil {
		return nil, err
	}

	u, err := url.Parse(a.Path)
	if err != nil {
		u = &url.URL{Path: a.Path}
	}

	u.Scheme = cmp.Or(strings.ToLower(string(a.Scheme)), "http")
	u.Host = net.JoinHostPort(cmp.Or(a.Host, ip), strconv.Itoa(port))
	if !strings.HasPrefix(u.Path, "/") {
		u.Path = "/" + u.Path
	}

	return http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
}

// setHeaders sets the headers of the pod's author, which come before the agent's own. An empty Accept means
// none.
func setHeaders(req *http.Request, headers []v1.HTTPHeader, agent string) {
	req.Header.Set("User-Agent", agent)
	req.Header.Set("Accept", "*/*")
	for _, h := range headers {
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
}

// sameHost follows redirects on the same host, up to ten as clients do.
func sameHost(req *http.Request, via []*http.Request) error {
	if req.URL.Hostname() != via[0].URL.Hostname() {
		return http.ErrUseLastResponse
	}
	if len(via) >= 10 {
		return errors.New("stopped after 10 redirects")
	}
	return nil
}
