// Package identity is how the node proves who it is. It connects to the API server with the node's own
// kubeconfig, or gets a client certificate with a bootstrap kubeconfig first (a CertificateSigningRequest, as
// kubelet's TLS bootstrap), renews that certificate before it ends, and has the certificate with which the
// agent serves its own API. Files and their names are those of kubelet.
package identity

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"

	"github.com/trivet-node/trivet/internal/kube"
	"github.com/trivet-node/trivet/internal/retry"
)

// Config says where the node's identity is kept and how to get one.
type Config struct {
	NodeName   string
	Kubeconfig string // the node's own; it is written after a bootstrap

	// Bootstrap is a kubeconfig with a bootstrap token, used while Kubeconfig is missing or its certificate
	// has expired.
	Bootstrap string

	CertDir   string // /var/lib/kubelet/pki
	UserAgent string // names the program in the API server's audit log
	Log       *slog.Logger

	// RenewalFailed is called for each renewal that has failed. It may be nil.
	RenewalFailed func()
}

func (c Config) store() Store { return Store{Dir: c.CertDir, Name: "kubelet-client"} }

// Requests are the CertificateSigningRequests of an API server.
type Requests = kube.Objects[certificatesv1.CertificateSigningRequest]

// RequestsOf returns the CertificateSigningRequests of a client's server.
func RequestsOf(c *kube.Client) Requests {
	return kube.Of[certificatesv1.CertificateSigningRequest, certificatesv1.CertificateSigningRequestList](
		c, certificatesv1.SchemeGroupVersion, "certificatesigningrequests")
}

// Identity is the node's client certificate, or the way to get one.
type Identity struct {
	cfg       Config
	api       kube.Config
	bootstrap *kube.Config // nil: the kubeconfig can be used
	gate      *gate        // holds requests back until the node has joined
}

// New reads the kubeconfigs. It waits for nothing: static pods, of which the API server may be one, must run
// before there is an identity.
func New(cfg Config) (*Identity, error) {
	own, reason := usable(cfg.Kubeconfig, time.Now())
	if reason == nil {
		own.UserAgent = cfg.UserAgent
		return &Identity{cfg: cfg, api: own}, nil
	}

	if cfg.Bootstrap == "" {
		return nil, fmt.Errorf("%w; no bootstrap kubeconfig is given", reason)
	}

	bootstrap, err := kube.Load(cfg.Bootstrap)
	if err != nil {
		return nil, err
	}

	bootstrap.UserAgent = cfg.UserAgent
	cfg.Log.Info("a client certificate is requested", "node", cfg.NodeName, "because", reason.Error())
	closed := newGate()
	return &Identity{
		cfg:       cfg,
		api:       bootstrap.Via(closed),
		bootstrap: &bootstrap,
		gate:      closed,
	}, nil
}

// API is how to reach the API server as the node. Requests wait, as long as they may, until Run has got the
// node an identity.
func (id *Identity) API() kube.Config { return id.api }

// Run joins the cluster if the node has not, and with rotate renews the certificate until ctx ends. Renewed
// certificates are read by all connections by themselves. A kubeconfig with a certificate from elsewhere is
// left alone.
func (id *Identity) Run(ctx context.Context, requests Requests, rotate bool) error {
	if id.bootstrap != nil {
		own, err := id.join(ctx)
		if err != nil {
			return fmt.Errorf("join as node %s: %w", id.cfg.NodeName, err)
		}

		id.gate.open(own)
	}

	store := id.cfg.store()
	if _, err := os.Stat(store.current()); !rotate || errors.Is(err, fs.ErrNotExist) {
		return nil
	}

	keep := renewal{
		store:   store,
		request: Request{NodeName: id.cfg.NodeName},
		sign:    requests,
		failed:  id.cfg.RenewalFailed,
		log:     id.cfg.Log,
	}

	keep.run(ctx)
	return nil
}

// Ends returns when the client certificate ends, the zero time if the node has none of its own.
func (id *Identity) Ends() time.Time {
	if pair, err := id.cfg.store().Load(); err == nil {
		return pair.Leaf.NotAfter
	}
	cert, key, err := id.api.ClientCertificate()
	if err != nil || cert == nil {
		return time.Time{}
	}
	pair, err := parsePair(id.cfg.Kubeconfig, cert, key)
	if err != nil {
		return time.Time{}
	}
	return pair.Leaf.NotAfter
}

// usable reads the node's own kubeconfig. The error says why it cannot be used.
func usable(path string, now time.Time) (kube.Config, error) {
	if _, err := os.Stat(path); err != nil {
		return kube.Config{}, fmt.Errorf("kubeconfig: %w", err)
	}

	cfg, err := kube.Load(path)
	if err != nil {
		return kube.Config{}, err
	}

	cert, key, err := cfg.ClientCertificate()
	if err != nil {
		return kube.Config{}, fmt.Errorf("kubeconfig %s: %w", path, err)
	}

	if cert == nil {
		// a token, an exec plugin or nothing: whether that is enough is the server's decision
		return cfg, nil
	}

	pair, err := parsePair(path, cert, key)
	if err != nil {
		return kube.Config{}, err
	}

	if end := pair.Leaf.NotAfter; now.After(end) {
		return kube.Config{}, fmt.Errorf("kubeconfig %s: client certificate ended at %s",
			path, end.Format(time.RFC3339))
	}

	return cfg, nil
}

// joinPauses are those between attempts to get the first certificate: somebody may have to approve it.
var joinPauses = retry.Backoff{First: time.Second, Max: 30 * time.Second}

// join gets the first certificate, writes the kubeconfig that names it, and returns the transport that has
// it.
func (id *Identity) join(ctx context.Context) (http.RoundTripper, error) {
	if err := id.firstCertificate(ctx); err != nil {
		return nil, err
	}
	if err := id.bootstrap.WriteKubeconfig(id.cfg.Kubeconfig, id.cfg.store().current()); err != nil {
		return nil, err
	}
	own, err := kube.Load(id.cfg.Kubeconfig)
	if err != nil {
		return nil, err
	}
	return own.Transport()
}

// firstCertificate gets the first certificate. One that an earlier run got, but was killed before it wrote
// the kubeconfig, is taken.
func (id *Identity) firstCertificate(ctx context.Context) error {
	store := id.cfg.store()
	pair, err := store.Load()
	if err == nil && time.Now().Before(pair.Leaf.NotAfter) &&
		pair.Leaf.Subject.CommonName == userName(id.cfg.NodeName) {
		return nil
	}

	client, err := kube.New(*id.bootstrap)
	if err != nil {
		return err
	}

	requests := RequestsOf(client)
	for pause := range joinPauses.Attempts(ctx) {
		var cert, key []byte
		cert, key, err = Sign(ctx, requests, Request{NodeName: id.cfg.NodeName})
		if err == nil {
			_, err = store.Put(cert, key, time.Now())
			return err
		}

		id.cfg.Log.Warn("no client certificate yet", "node", id.cfg.NodeName, "err", err, "retry", pause)
	}

	return errors.Join(err, context.Cause(ctx))
}

// gate holds requests back until the node has the identity to make them with.
type gate struct {
	opened chan struct{}
	next   http.RoundTripper // set before opened is closed
}

func newGate() *gate { return &gate{opened: make(chan struct{})} }

// open lets all requests through, with the given transport.
func (g *gate) open(next http.RoundTripper) {
	g.next = next
	close(g.opened)
}

// RoundTrip waits as long as the request may.
func (g *gate) RoundTrip(r *http.Request) (*http.Response, error) {
	select {
	case <-g.opened:
		return g.next.RoundTrip(r)
	case <-r.Context().Done():
		if r.Body != nil {
			r.Body.Close()
		}
		return nil, r.Context().Err()
	}
}
