package kubeapi

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"time"

	"k8s.io/client-go/rest"
)

// Identity says where the node's identity is kept and how to get one.
type Identity struct {
	NodeName   string
	Kubeconfig string // the node's own; written after a bootstrap
	// kubeconfig with a bootstrap token; used when Kubeconfig is missing or its certificate has ended
	Bootstrap string
	CertDir   string // e.g. /var/lib/kubelet/pki
}

func (id Identity) store() Store { return Store{Dir: id.CertDir, Name: "kubelet-client"} }

// Connect returns the configuration of the node's identity, without waiting for anything: static pods, of
// which the API server may be one, must run before there is an identity. A usable kubeconfig is taken as it
// is. Otherwise requests wait until join has asked for a certificate with the bootstrap kubeconfig and
// written one; join must be run, and takes as long as the API server and the signer do.
func Connect(id Identity, log *slog.Logger) (cfg *rest.Config, join func(context.Context) error, err error) {
	reason := usable(id.Kubeconfig, time.Now())
	if reason == nil {
		cfg, err = Load(id.Kubeconfig)
		return cfg, func(context.Context) error { return nil }, err
	}

	if id.Bootstrap == "" {
		return nil, nil, fmt.Errorf("%w; no bootstrap kubeconfig is given", reason)
	}

	bootstrap, err := Load(id.Bootstrap)
	if err != nil {
		return nil, nil, err
	}

	log.Info("asks for a client certificate", "node", id.NodeName, "because", reason.Error())
	closed := &gate{opened: make(chan struct{})}
	join = func(ctx context.Context) error {
		own, err := id.become(ctx, bootstrap, log)
		if err == nil {
			closed.open(own)
		}

		return err
	}

	return &rest.Config{Host: bootstrap.Host, APIPath: bootstrap.APIPath, Transport: closed}, join, nil
}

// become gets the node's identity and returns the transport that has it.
func (id Identity) become(
	ctx context.Context, bootstrap *rest.Config, log *slog.Logger,
) (http.RoundTripper, error) {
	if err := id.join(ctx, bootstrap, log); err != nil {
		return nil, fmt.Errorf("join as node %s: %w", id.NodeName, err)
	}
	if err := writeKubeconfig(id.Kubeconfig, bootstrap, id.store().Current()); err != nil {
		return nil, err
	}
	cfg, err := Load(id.Kubeconfig)
	if err != nil {
		return nil, err
	}
	return rest.TransportFor(cfg)
}

// join gets the first certificate. One that an earlier run got, but was killed before it wrote the
// kubeconfig, is taken.
func (id Identity) join(ctx context.Context, bootstrap *rest.Config, log *slog.Logger) error {
	if pair, err := id.store().Load(); err == nil && time.Now().Before(pair.Leaf.NotAfter) &&
		pair.Leaf.Subject.CommonName == "system:node:"+id.NodeName {
		return nil
	}

	client, err := New(bootstrap)
	if err != nil {
		return err
	}

	for wait := time.Second; ; wait = min(2*wait, 30*time.Second) {
		cert, key, err := client.Sign(ctx, Request{NodeName: id.NodeName})
		if err == nil {
			_, err = id.store().Put(cert, key, time.Now())
			return err
		}

		log.Warn("no client certificate yet", "node", id.NodeName, "err", err, "retry", wait)
		select {
		case <-ctx.Done():
			return errors.Join(err, ctx.Err())
		case <-time.After(wait):
		}
	}
}

// usable tells why a kubeconfig cannot be used, nil when it can.
func usable(path string, now time.Time) error {
	if _, err := os.Stat(path); err != nil {
		return fmt.Errorf("kubeconfig: %w", err)
	}

	cfg, err := Load(path)
	if err != nil {
		return err
	}

	cert, key := cfg.CertData, cfg.KeyData
	if cfg.CertFile != "" {
		if cert, err = os.ReadFile(cfg.CertFile); err != nil {
			return fmt.Errorf("kubeconfig %s: client certificate: %w", path, err)
		}
	}

	if cfg.KeyFile != "" {
		if key, err = os.ReadFile(cfg.KeyFile); err != nil {
			return fmt.Errorf("kubeconfig %s: client key: %w", path, err)
		}
	}

	if cert == nil {
		// a token, exec plugin, or no credentials: the server will say what it thinks of them
		return nil
	}

	pair, err := parsePair(path, cert, key)
	if err != nil {
		return err
	}

	if now.After(pair.Leaf.NotAfter) {
		return fmt.Errorf("kubeconfig %s: client certificate ended at %s",
			path, pair.Leaf.NotAfter.Format(time.RFC3339))
	}

	return nil
}

// Rotate renews the client certificate of an identity that Connect made, until ctx ends. client-go reads the
// new file by itself and closes the connections that were made with the old one. A kubeconfig with a
// certificate from elsewhere is left alone.
func (id Identity) Rotate(ctx context.Context, client *Client, log *slog.Logger) error {
	store := id.store()
	return store.keep(ctx, log, func(ctx context.Context) (cert, key []byte, err error) {
		return client.Sign(ctx, Request{NodeName: id.NodeName})
	})
}

// keep replaces the certificate in the store when it is time. It returns nil when there is none to renew or
// ctx ends.
func (s Store) keep(
	ctx context.Context,
	log *slog.Logger,
	sign func(context.Context) (cert, key []byte, err error),
) error {
	for {
		pair, err := s.Load()
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := sleepUntil(ctx, RenewAt(pair.Leaf)); err != nil {
			return nil //nolint:nilerr // the end of ctx is how keep ends
		}

		attempt, cancel := context.WithTimeout(ctx, 15*time.Minute)
		cert, key, err := sign(attempt)
		cancel()
		if err == nil {
			_, err = s.Put(cert, key, time.Now())
		}

		if err != nil {
			log.Warn("certificate is not renewed", "name", s.Name, "ends", pair.Leaf.NotAfter, "err", err)
			if sleepUntil(ctx, time.Now().Add(time.Minute)) != nil {
				return nil
			}

			continue
		}

		log.Info("certificate is renewed", "name", s.Name)
	}
}

func sleepUntil(ctx context.Context, at time.Time) error {
	t := time.NewTimer(time.Until(at))
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
