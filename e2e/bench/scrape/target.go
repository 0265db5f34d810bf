package main

import (
	"compress/gzip"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"k8s.io/client-go/rest"

	"github.com/trivet-node/trivet/e2e/bench"
	"github.com/trivet-node/trivet/e2e/cluster"
	"github.com/trivet-node/trivet/e2e/cluster/address"
	"github.com/trivet-node/trivet/e2e/cluster/controlplane"
	"github.com/trivet-node/trivet/e2e/machine"
	"github.com/trivet-node/trivet/internal/namespace"
)

// target is a node whose endpoints are asked.
type target struct {
	name string

	// side is the name of its make in figures.
	side string

	base    string
	client  *http.Client
	machine *machine.Machine

	// daemons are the PIDs of the node's daemons, on the host.
	daemons []int
}

// newTarget returns the node with this index in the cluster's plan. It is asked from the machine of the
// control plane, as the API server asks it, and verified by the cluster's CA.
func newTarget(c *cluster.Cluster, admin *rest.Config, index int, side string) (*target, error) {
	trust, err := rest.TLSConfigFor(admin)
	if err != nil {
		return nil, err
	}

	plan, err := c.Plan()
	if err != nil {
		return nil, err
	}

	name, ip := plan.Nodes[index].Name, address.Node(index).String()
	trust.ServerName = ip
	network := fmt.Sprintf("/proc/%d/ns/net", c.Machine(controlplane.Name).Pid())
	return &target{
		name:    name,
		side:    side,
		base:    "https://" + net.JoinHostPort(ip, "10250"),
		client:  clientIn(network, trust),
		machine: c.Machine(name),
	}, nil
}

// clientIn keeps its connection from one scrape to the next, as Prometheus does.
func clientIn(network string, trust *tls.Config) *http.Client {
	dial := func(_ context.Context, protocol, addr string) (conn net.Conn, err error) {
		err = namespace.Do(func() error {
			conn, err = net.DialTimeout(protocol, addr, 5*time.Second)
			return err
		}, network)

		return conn, err
	}

	return &http.Client{
		Transport: &http.Transport{
			DialContext:        dial,
			TLSClientConfig:    trust,
			DisableCompression: true,
		},
		Timeout: 30 * time.Second,
	}
}

// answer is what one scrape has brought.
type answer struct {
	text []byte

	// sent is how many bytes the node has sent, which are compressed.
	sent int
	took time.Duration
}

// scrape asks as Prometheus does: for the text format, compressed.
func (t *target) scrape(ctx context.Context, path string) (answer, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, t.base+path, nil)
	if err != nil {
		return answer{}, err
	}

	request.Header.Set("Accept", "text/plain;version=0.0.4;q=0.5,*/*;q=0.1")
	request.Header.Set("Accept-Encoding", "gzip")
	start := time.Now()
	response, err := t.client.Do(request)
	if err != nil {
		return answer{}, err
	}
	defer response.Body.Close()

	counted := &counter{Reader: response.Body}
	body := io.Reader(counted)
	if response.Header.Get("Content-Encoding") == "gzip" {
		if body, err = gzip.NewReader(counted); err != nil {
			return answer{}, err
		}
	}

	text, err := io.ReadAll(body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("status %s: %.200s", response.Status, text)
	}
	if err != nil {
		return answer{}, fmt.Errorf("%s of %s: %w", path, t.name, err)
	}

	return answer{text: text, sent: counted.n, took: time.Since(start)}, nil
}

// counter counts what is read.
type counter struct {
	io.Reader
	n int
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	c.n += n
	return n, err
}

// findDaemons finds the processes that cpu counts.
func (t *target) findDaemons() { t.daemons = bench.Daemons(t.machine.Processes()) }

// cpu is the processor time that the node's daemons have used so far.
func (t *target) cpu() time.Duration { return bench.Clock(t.daemons) }
