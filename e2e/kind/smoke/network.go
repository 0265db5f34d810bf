package smoke

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

// address is where something is reached, and a part of what answers there.
type address struct{ host, port, answer string }

// network is how things are reached.
type network Smoke

// addresses reaches pods, the Service and the ports of nodes from pods and nodes, by every address that they
// have.
func (s network) addresses(ctx context.Context) (string, error) {
	pods, err := s.pods(ctx)
	if err != nil {
		return "", err
	}

	service, err := s.service(ctx)
	if err != nil {
		return "", err
	}

	nodes, err := s.nodePorts(ctx)
	if err != nil {
		return "", err
	}

	for _, node := range s.Nodes {
		for _, to := range slices.Concat(pods, service, nodes) {
			if err := s.fromPod(ctx, node, to); err != nil {
				return "", err
			}
		}

		// Names of Services are not known there.
		for _, to := range slices.Concat(pods, nodes) {
			if err := s.fromNode(ctx, node, to); err != nil {
				return "", err
			}
		}
	}

	var hosts []string
	for _, to := range slices.Concat(pods[:s.Family.count()], service[1:]) {
		hosts = append(hosts, to.host)
	}
	return strings.Join(hosts, " "), nil
}

// pods are the addresses of the application's.
func (s network) pods(ctx context.Context) ([]address, error) {
	lines, err := namespace(s).lines(ctx, "{.metadata.name} {.status.podIPs[*].ip}", "pods", "-l", "app=app")
	if err != nil {
		return nil, err
	}

	var all []address
	for _, line := range lines {
		name, ips, _ := strings.Cut(line, " ")
		if err := s.Family.check(strings.Fields(ips)); err != nil {
			return nil, fmt.Errorf("pod %s: %w", name, err)
		}
		for ip := range strings.FieldsSeq(ips) {
			all = append(all, address{ip, "8080", name})
		}
	}
	if len(lines) != len(s.Nodes) {
		return nil, fmt.Errorf("pods of the application: %v", lines)
	}
	return all, nil
}

// service is the name of the application's Service, and its addresses.
func (s network) service(ctx context.Context) ([]address, error) {
	ips, err := namespace(s).kubectl(ctx, "get", "service", "app", "-o", "jsonpath={.spec.clusterIPs[*]}")
	if err != nil {
		return nil, err
	}
	if err := s.Family.check(strings.Fields(ips)); err != nil {
		return nil, fmt.Errorf("service app: %w", err)
	}

	all := []address{{"app." + space, "80", "app-"}}
	for ip := range strings.FieldsSeq(ips) {
		all = append(all, address{ip, "80", "app-"})
	}
	return all, nil
}

// nodePorts are the addresses of nodes with the port of the Service.
func (s network) nodePorts(ctx context.Context) ([]address, error) {
	lines, err := namespace(s).lines(ctx, `{.status.addresses[?(@.type=="InternalIP")].address}`, "nodes")
	if err != nil {
		return nil, err
	}

	var all []address
	for _, line := range lines {
		if err := s.Family.check(strings.Fields(line)); err != nil {
			return nil, fmt.Errorf("node: %w", err)
		}
		for ip := range strings.FieldsSeq(line) {
			all = append(all, address{ip, strconv.Itoa(NodePort), "app-"})
		}
	}
	return all, nil
}

// check returns an error unless the addresses are one of each family of the cluster.
func (f Family) check(ips []string) error {
	has := map[bool]int{}
	for _, ip := range ips {
		a, err := netip.ParseAddr(ip)
		if err != nil {
			return err
		}
		has[a.Is6()]++
	}

	four, six := has[false], has[true]
	if len(ips) != f.count() || (four == 1) != (f != IPv6) || (six == 1) != (f != IPv4) {
		return fmt.Errorf("addresses %v in a cluster of %s", ips, f)
	}
	return nil
}

func (a address) url() string { return "http://" + net.JoinHostPort(a.host, a.port) + "/info" }

// fromPod reaches an address from the application's pod on a node. The wget of Debian's static busybox
// crashes when it is given a limit of time.
func (s network) fromPod(ctx context.Context, node string, to address) error {
	return s.reach(ctx, "pod on "+node, to, func(ctx context.Context) (string, error) {
		return namespace(s).onApp(ctx, node, "timeout 5 wget -q -O - '"+to.url()+"'")
	})
}

// fromNode reaches an address from a node.
func (s network) fromNode(ctx context.Context, node string, to address) error {
	return s.reach(ctx, node, to, func(ctx context.Context) (string, error) {
		return s.Cluster.OnNode(ctx, node, "curl -gsSf --max-time 5 '"+to.url()+"'")
	})
}

// settling is how long a Service may take to lead to pods that are Ready.
const settling = 20 * time.Second

func (s network) reach(
	ctx context.Context, from string, to address, ask func(context.Context) (string, error),
) error {
	ctx, cancel := context.WithTimeout(ctx, settling)
	defer cancel()

	err := until(ctx, func(ctx context.Context) error {
		out, err := ask(ctx)
		if err == nil && !strings.Contains(out, to.answer) {
			err = fmt.Errorf("another answers: %s", out)
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("%s from %s: %w", to.url(), from, err)
	}
	return nil
}

// extraPortMappings reaches the Service from the host.
func (s network) extraPortMappings(ctx context.Context) (string, error) {
	at, err := s.published(ctx, NodePort)
	if err != nil {
		return "", err
	}

	err = until(ctx, func(ctx context.Context) error {
		status, text, err := fetch(ctx, at, "")
		if err == nil && (status != http.StatusOK || !strings.Contains(text, "app-")) {
			err = fmt.Errorf("%s answers %d: %s", at, status, text)
		}
		return err
	})
	return fmt.Sprintf("%s is port %d of the node", at, NodePort), err
}

// ingress runs the stand-in for a controller where kind's documents have one: on a port of the first node
// that the host has, with a rule for one host's name.
func (s network) ingress(ctx context.Context) (string, error) {
	if err := namespace(s).apply(ctx, "ingress.yaml"); err != nil {
		return "", err
	}
	if err := namespace(s).ready(ctx, "smoke=ingress"); err != nil {
		return "", err
	}
	return s.throughIngress(ctx)
}

// throughIngress reaches the Service from the host by the name for which there is a rule, and not by another.
func (s network) throughIngress(ctx context.Context) (string, error) {
	at, err := s.published(ctx, IngressPort)
	if err != nil {
		return "", err
	}

	err = until(ctx, func(ctx context.Context) error {
		status, text, err := fetch(ctx, at, "smoke.example")
		other, _, otherErr := fetch(ctx, at, "other.example")
		if err = errors.Join(err, otherErr); err != nil {
			return err
		}
		if status != http.StatusOK || !strings.Contains(text, "app-") || other != http.StatusNotFound {
			return fmt.Errorf("%s answers %d: %s; for another name %d", at, status, text, other)
		}
		return nil
	})
	return at + ", by a stand-in for a controller", err
}

// published is where the host has a port of the first node.
func (s network) published(ctx context.Context, port int) (string, error) {
	out, err := s.Cluster.Output(ctx, "", "docker", "port", s.Nodes[0], strconv.Itoa(port)+"/tcp")
	if err != nil {
		return "", err
	}
	return hostPort(out)
}

// hostPort is the first of what docker port prints. Old versions put no brackets round IPv6.
func hostPort(out string) (string, error) {
	line, _, _ := strings.Cut(out, "\n")
	colon := strings.LastIndexByte(line, ':')
	if colon < 0 {
		return "", fmt.Errorf("docker port says %q", out)
	}

	host := strings.Trim(line[:colon], "[]")
	return net.JoinHostPort(host, line[colon+1:]), nil
}

// fetch asks a server of the host for /info; name is in the request if it is not empty.
func fetch(ctx context.Context, at, name string) (status int, text string, err error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()

	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+at+"/info", nil)
	if err != nil {
		return 0, "", err
	}

	request.Host = name
	request.Close = true
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, "", err
	}
	defer answer.Body.Close()

	data, err := io.ReadAll(io.LimitReader(answer.Body, 1<<16))
	return answer.StatusCode, string(data), err
}
