// Package kube is the project's one door to the Kubernetes API server: how to reach it (Config), the calls
// that the parts make for each kind of object (Objects), and list-watches of many objects (Watch) and of a
// single one (Follow). client-go is imported here and in the packages below, and nowhere else in the product.
//
// It is small on purpose. A client knows the types that its program uses and no others, because client-go's
// clientset knows all types of Kubernetes and takes 10 to 20 MB of resident memory for that. Requests are not
// rationed on this side: the server's priority and fairness does that.
package kube

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// Config says where the API server is and as whom to speak to it. The zero value is of no use: a Config comes
// from Load, InCluster or At.
type Config struct {
	// UserAgent names the program in the server's audit log.
	UserAgent string

	// DialTimeout bounds an attempt to connect. Zero is 10 s. InCluster sets a shorter one.
	DialTimeout time.Duration

	// Limits are those of a client's requests.
	Limits Limits

	rest *rest.Config
}

// Limits say how long a client believes a server, or what is between, that says nothing. What is not above
// zero has its default.
type Limits struct {
	// Answer bounds a request and its answer; of a watch, what comes before the first event; of a list, how
	// long nothing comes of it. The default is 75 s: kube-apiserver itself gives up after 60 s, but not on a
	// list whose answer has begun.
	Answer time.Duration

	// Silence ends a watch on which nothing has come, not even a bookmark, of which kube-apiserver sends one
	// each minute. The default is 3 min.
	Silence time.Duration

	// Relist is after how long, at the earliest, what is watched is listed again: an event that was lost
	// without a trace is made good by then. It takes at most twice as long, and longer for more than 600
	// objects. The default is 10 min.
	Relist time.Duration
}

// resolved has the defaults.
func (l Limits) resolved() Limits {
	return Limits{
		Answer:  cmp.Or(max(l.Answer, 0), 75*time.Second),
		Silence: cmp.Or(max(l.Silence, 0), 3*time.Minute),
		Relist:  cmp.Or(max(l.Relist, 0), 10*time.Minute),
	}
}

// defaultDialTimeout bounds a connection attempt to a server that does not answer.
const defaultDialTimeout = 10 * time.Second

// serviceDialTimeout is that for the address of the API's Service. Until kube-proxy has written its rules,
// nobody answers there: with a longer timeout a pod of a node that starts would notice late that the rules
// are there.
const serviceDialTimeout = 2500 * time.Millisecond

// ErrNotInCluster is returned by InCluster when the process does not run in a pod.
var ErrNotInCluster = rest.ErrNotInCluster

// Load reads a kubeconfig file as kubectl does: its current context, relative paths taken from the file's
// directory.
func Load(path string) (Config, error) {
	rules := &clientcmd.ClientConfigLoadingRules{ExplicitPath: path}
	loader := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, &clientcmd.ConfigOverrides{})
	found, err := loader.ClientConfig()
	if err != nil {
		return Config{}, fmt.Errorf("kubeconfig %s: %w", path, err)
	}
	return Config{rest: found}, nil
}

// InCluster is the configuration of a pod: its service account, and the address of the API's Service.
func InCluster() (Config, error) {
	found, err := rest.InClusterConfig()
	return Config{rest: found, DialTimeout: serviceDialTimeout}, err
}

// At is the configuration for a server that asks for no credentials, such as one of a test.
func At(url string) Config { return Config{rest: &rest.Config{Host: url}} }

// Via returns a copy that sends all requests through the transport, which has to have the credentials.
func (c Config) Via(transport http.RoundTripper) Config {
	c.rest = &rest.Config{Host: c.rest.Host, APIPath: c.rest.APIPath, Transport: transport}
	return c
}

// Transport returns the transport that authenticates as the configuration says.
func (c Config) Transport() (http.RoundTripper, error) { return rest.TransportFor(c.resolved()) }

// resolved is client-go's form of the configuration.
func (c Config) resolved() *rest.Config {
	out := rest.CopyConfig(c.rest)
	out.UserAgent = c.UserAgent
	out.QPS = -1
	if out.Transport == nil {
		timeout := c.DialTimeout
		if timeout == 0 {
			timeout = defaultDialTimeout
		}
		out.Dial = (&net.Dialer{Timeout: timeout, KeepAlive: 30 * time.Second}).DialContext
	}
	return out
}

// Server returns the host name or address of the API server, and its port. As for kubectl, the configuration
// may give them as a URL or as host:port.
func (c Config) Server() (host, port string, err error) {
	u, _, err := rest.DefaultServerUrlFor(c.rest)
	if err != nil {
		return "", "", fmt.Errorf("address of the API server %q: %w", c.rest.Host, err)
	}

	port = u.Port()
	switch {
	case port != "":
	case u.Scheme == "http":
		port = "80"
	default:
		port = "443"
	}

	return u.Hostname(), port, nil
}

// ClientCertificate returns the client certificate and its key (PEM) that the configuration names, both nil
// if it has none: with a token, an exec plugin or no credentials.
func (c Config) ClientCertificate() (cert, key []byte, err error) {
	cert, key = c.rest.CertData, c.rest.KeyData
	if path := c.rest.CertFile; path != "" {
		if cert, err = os.ReadFile(path); err != nil {
			return nil, nil, fmt.Errorf("client certificate: %w", err)
		}
	}

	if path := c.rest.KeyFile; path != "" {
		if key, err = os.ReadFile(path); err != nil {
			return nil, nil, fmt.Errorf("client key: %w", err)
		}
	}

	return cert, key, nil
}

// WriteKubeconfig writes a kubeconfig file for the same server with the PEM file as client certificate and
// key. Clients that use it read the PEM file again when that changes, so a rotated certificate needs no new
// kubeconfig.
func (c Config) WriteKubeconfig(path, pem string) error {
	if c.rest.Transport != nil {
		return errors.New("write kubeconfig: the configuration has a transport of its own")
	}

	abs, err := filepath.Abs(pem)
	if err != nil {
		return fmt.Errorf("write kubeconfig %s: %w", path, err)
	}

	out := clientcmdapi.NewConfig()
	out.Clusters["default-cluster"] = &clientcmdapi.Cluster{
		Server:                   c.rest.Host,
		TLSServerName:            c.rest.ServerName,
		InsecureSkipTLSVerify:    c.rest.Insecure,
		CertificateAuthority:     c.rest.CAFile,
		CertificateAuthorityData: c.rest.CAData,
	}

	out.AuthInfos["default-auth"] = &clientcmdapi.AuthInfo{ClientCertificate: abs, ClientKey: abs}
	out.Contexts["default-context"] = &clientcmdapi.Context{
		Cluster:   "default-cluster",
		AuthInfo:  "default-auth",
		Namespace: "default",
	}

	out.CurrentContext = "default-context"

	if err := clientcmd.WriteToFile(*out, path); err != nil {
		return fmt.Errorf("write kubeconfig %s: %w", path, err)
	}

	return nil
}
