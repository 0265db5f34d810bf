package identity

import (
	"context"
	"crypto/tls"
	"log/slog"
	"time"

	"github.com/trivet-node/trivet/internal/retry"
)

const (
	// signTimeout is how long a request waits for its approval before another one is made.
	signTimeout = 15 * time.Minute

	// retryRenewal is the pause after a renewal that has failed.
	retryRenewal = time.Minute
)

// renewal keeps a certificate of the cluster's signer valid.
type renewal struct {
	store   Store
	request Request
	sign    Requests
	renewed func(*tls.Certificate) // with the first one, too; may be nil
	failed  func()                 // after each renewal that fails; may be nil
	rotated func(time.Duration)    // how old the certificate was that was replaced; may be nil
	log     *slog.Logger
}

// run replaces the certificate when it is time, and gets one if there is none, until ctx ends.
func (r renewal) run(ctx context.Context) {
	for ctx.Err() == nil {
		next := time.Now().Add(retryRenewal)
		pair, err := r.current(ctx)
		switch {
		case err == nil:
			next = renewAt(pair.Leaf)
			if r.renewed != nil {
				r.renewed(pair)
			}

		case ctx.Err() == nil:
			r.log.Warn("certificate is not renewed", "name", r.store.Name, "err", err)
			if r.failed != nil {
				r.failed()
			}
		}

		if retry.Sleep(ctx, time.Until(next)) != nil {
			return
		}
	}
}

// current is the stored certificate or, when that is to be replaced, a new one.
func (r renewal) current(ctx context.Context) (*tls.Certificate, error) {
	pair, err := r.store.Load()
	if err == nil && time.Now().Before(renewAt(pair.Leaf)) {
		return pair, nil
	}

	ctx, cancel := context.WithTimeout(ctx, signTimeout)
	defer cancel()

	cert, key, err := Sign(ctx, r.sign, r.request)
	if err != nil {
		return nil, err
	}
	before := pair
	if pair, err = r.store.Put(cert, key, time.Now()); err != nil {
		return nil, err
	}

	if before != nil && r.rotated != nil {
		r.rotated(time.Since(before.Leaf.NotBefore))
	}

	r.log.Info("certificate is renewed", "name", r.store.Name, "ends", pair.Leaf.NotAfter)
	return pair, nil
}
