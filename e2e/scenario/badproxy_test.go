package scenario

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	clusters "github.com/trivet-node/trivet/e2e/cluster"
	"github.com/trivet-node/trivet/e2e/cluster/address"
	"github.com/trivet-node/trivet/e2e/pki"
	"github.com/trivet-node/trivet/internal/kube"
	"github.com/trivet-node/trivet/internal/kube/faultproxy"
	"github.com/trivet-node/trivet/internal/namespace"
)

// badProxy is what a test's node has between its agent and the API server.
type badProxy struct {
	*faultproxy.Proxy
	seed uint64
}

// seedOf is the seed of a test: another one each day would find more, and be of no use when it fails.
func seedOf(t *testing.T, usual uint64) uint64 {
	t.Helper()
	text := os.Getenv(faultproxy.SeedVariable)
	if text == "" {
		return usual
	}
	seed, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return seed
}

// disturb puts a proxy between the agent of the test's node and the API server until the test ends, and
// restarts the agent. It does nothing wrong until it is told to.
func (c *cluster) disturb(seed uint64) *badProxy {
	c.t.Helper()
	listener := c.listenOnNode()
	proxy := faultproxy.New(faultproxy.Config{
		Server:    c.apiServer(),
		Transport: c.asNode(),
		Seed:      seed,
		Log:       slog.New(slog.DiscardHandler),
	})

	front := &http.Server{
		Handler:   proxy,
		TLSConfig: &tls.Config{Certificates: []tls.Certificate{c.certificate("fault-proxy")}},
		ErrorLog:  slog.NewLogLogger(slog.DiscardHandler, slog.LevelError),
	}
	done := make(chan error, 1)
	go func() { done <- front.ServeTLS(listener, "", "") }()

	c.t.Cleanup(func() {
		c.rewire("https://"+listener.Addr().String(), address.APIServer, "1m0s")
		_ = front.Close()
		if err := <-done; !errors.Is(err, http.ErrServerClosed) {
			c.t.Error(err)
		}
		c.t.Logf("seed %d: %s", seed, proxy.Tally())
	})

	c.rewire(address.APIServer, "https://"+listener.Addr().String(), "2s")
	return &badProxy{Proxy: proxy, seed: seed}
}

// rewire has the agent of the test's node reach the API server elsewhere, and restarts it. What is watched is
// listed again after ten times sync.
func (c *cluster) rewire(from, to, sync string) {
	c.t.Helper()
	const edit = `
		sed -i 's#%s#%s#' /etc/kubernetes/kubelet.conf
		sed -i -e '/"syncFrequency"/d' \
			-e 's#"kind": "KubeletConfiguration",#&\n  "syncFrequency": "%s",#' /etc/trivet/kubelet.json`
	c.onNode("", edit, from, to, sync)
	c.do("kill", c.node, c.agent)
	c.do("start", c.node, c.agent)
}

// nodeAddress is that of the test's node.
func (c *cluster) nodeAddress() netip.Addr {
	c.t.Helper()
	for i, name := range c.allNodes() {
		if name == c.node {
			return address.Node(i)
		}
	}
	c.t.Fatalf("there is no node %s", c.node)
	panic("unreachable")
}

// listenOnNode listens in the network of the test's node, on its address: the agent takes the address from
// which it reaches the server for the node's.
func (c *cluster) listenOnNode() net.Listener {
	c.t.Helper()
	pid := (&clusters.Cluster{Dir: c.dir}).Machine(c.node).Pid()
	at := &net.TCPAddr{IP: c.nodeAddress().AsSlice()}

	var listener net.Listener
	err := namespace.Do(func() (err error) {
		listener, err = net.ListenTCP("tcp4", at)
		return err
	}, "/proc/"+strconv.Itoa(pid)+"/ns/net")
	if err != nil {
		c.t.Fatal(err)
	}
	return listener
}

// keys are the cluster's keys and certificates.
func (c *cluster) keys() pki.Dir { return pki.Dir(filepath.Join(c.dir, "pki")) }

// certificate makes a serving certificate for the test's node, of the cluster's CA.
func (c *cluster) certificate(name string) tls.Certificate {
	c.t.Helper()
	ca, err := c.keys().Authority("ca")
	if err != nil {
		c.t.Fatal(err)
	}

	name += "-" + c.node
	if err := c.keys().Server(ca, name, name, c.nodeAddress().String()); err != nil {
		c.t.Fatal(err)
	}
	return c.pair(name)
}

func (c *cluster) pair(name string) tls.Certificate {
	c.t.Helper()
	pair, err := tls.LoadX509KeyPair(c.keys().Path(name+".crt"), c.keys().Path(name+".key"))
	if err != nil {
		c.t.Fatal(err)
	}
	return pair
}

// apiServer is where the host reaches the API server.
func (c *cluster) apiServer() *url.URL {
	c.t.Helper()
	config, err := kube.Load(filepath.Join(c.dir, "kubeconfig"))
	if err != nil {
		c.t.Fatal(err)
	}
	host, port, err := config.Server()
	if err != nil {
		c.t.Fatal(err)
	}
	return &url.URL{Scheme: "https", Host: net.JoinHostPort(host, port)}
}

// asNode reaches the API server as the test's node.
func (c *cluster) asNode() http.RoundTripper {
	c.t.Helper()
	ca, err := c.keys().Authority("ca")
	if err != nil {
		c.t.Fatal(err)
	}

	trusted := x509.NewCertPool()
	trusted.AppendCertsFromPEM(ca.PEM)
	transport := &http.Transport{
		ForceAttemptHTTP2:  true,
		DisableCompression: true,
		TLSClientConfig: &tls.Config{
			RootCAs:      trusted,
			Certificates: []tls.Certificate{c.pair(c.node)},
		},
	}
	c.t.Cleanup(transport.CloseIdleConnections)
	return transport
}

// podsOnDisk are the UIDs of the pods that the test's node has directories of.
func (c *cluster) podsOnDisk() []string {
	c.t.Helper()
	return strings.Fields(c.onNode("", "ls /var/lib/kubelet/pods"))
}

// podsOfNode are the UIDs of the pods that the API has bound to the test's node.
func (c *cluster) podsOfNode() ([]string, error) {
	out, err := c.try("get", "pods", "--all-namespaces", "--field-selector=spec.nodeName="+c.node,
		"-o", "jsonpath={.items[*].metadata.uid}")
	return strings.Fields(out), err
}

// calm is how long an agent behind a proxy that answers as it should again may take until it has found out
// what it missed: an answer that never comes ends after 75 s, and lists are at most 40 s apart.
const calm = 3 * time.Minute
