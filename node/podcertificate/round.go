package podcertificate

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/trivet-node/trivet/node/podspec"
)

// callTimeout bounds what is asked of the API server for one certificate, and the making of its key.
const callTimeout = 30 * time.Second

// round is one call of Volume: it does what is due.
type round struct {
	*Keeper
	pod    *v1.Pod
	volume *volume

	// account is the UID of the pod's service account, empty before it is needed.
	account types.UID

	// asked means that a request was made.
	asked bool
}

// do does what is due for the certificates of the volume. It returns an error if one is missing: ErrNotIssued
// if all of them may still come.
func (r *round) do(ctx context.Context) error {
	for _, c := range r.volume.all() {
		do, shown := r.look(c)
		var err error
		switch do {
		case ask:
			err = r.ask(ctx, c)
		case check:
			err = r.check(ctx, c)
		}

		// A renewal that is not possible yet holds up nothing.
		switch {
		case err == nil:
		case !shown:
			return err
		default:
			r.cfg.Log.Warn("certificate is not renewed yet",
				"pod", r.pod.Namespace+"/"+r.pod.Name, "signer", c.source.SignerName, "err", err)
		}
	}

	return r.missing()
}

// look returns what is due for a certificate, and whether there is one already. Events that are due are sent.
func (r *round) look(c *certificate) (do action, shown bool) {
	now := time.Now()
	r.mu.Lock()
	do, shown = c.due(now), c.pair != nil
	if do == ask && r.volume.pod.asked >= maxAsked {
		do = nothing
	}
	warnings := c.warnings(now)
	r.mu.Unlock()

	for _, w := range warnings {
		r.cfg.Events.Pod(r.pod, "", v1.EventTypeWarning, w.reason, w.message)
	}
	return do, shown
}

// missing returns why the volume cannot be shown, nil if it can.
func (r *round) missing() error {
	r.mu.Lock()
	defer r.mu.Unlock()

	var waiting error
	for _, c := range r.volume.all() {
		switch {
		case c.pair != nil:
		case c.ended != nil:
			return c.ended
		case c.request != nil:
			waiting = fmt.Errorf("%w: signer %q has not answered PodCertificateRequest %s/%s",
				ErrNotIssued, c.source.SignerName, r.pod.Namespace, c.request.name)
		case waiting == nil:
			waiting = ErrNotIssued
		}
	}
	return waiting
}

// ask makes a key and asks for a certificate.
func (r *round) ask(ctx context.Context, c *certificate) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()

	err := r.submit(ctx, c)
	if err == nil {
		r.asked = true
		return nil
	}

	// The caller of Volume has a back-off for what is missing.
	r.mu.Lock()
	defer r.mu.Unlock()
	if c.pair != nil {
		c.askAt = time.Now().Add(askAgainAfter + jitter(askAgainAfter))
	}
	return err
}

// submit makes a key and creates a request for it.
func (r *round) submit(ctx context.Context, c *certificate) error {
	node := r.cfg.Node()
	if node == nil {
		return errors.New("the node is not registered yet")
	}

	name := podspec.ServiceAccount(r.pod)
	if r.account == "" {
		var err error
		if r.account, err = r.cfg.API.Account(ctx, r.pod.Namespace, name); err != nil {
			return fmt.Errorf("service account %s/%s: %w", r.pod.Namespace, name, err)
		}
	}

	made, proof, err := r.newRequest(ctx, c.source.KeyType)
	if err != nil {
		return err
	}

	object := &certificatesv1.PodCertificateRequest{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: r.pod.Namespace,
			Name:      made.name,
			OwnerReferences: []metav1.OwnerReference{{
				APIVersion: "v1",
				Kind:       "Pod",
				Name:       r.pod.Name,
				UID:        r.pod.UID,
			}},
		},
		Spec: certificatesv1.PodCertificateRequestSpec{
			SignerName:                c.source.SignerName,
			PodName:                   r.pod.Name,
			PodUID:                    r.pod.UID,
			ServiceAccountName:        name,
			ServiceAccountUID:         r.account,
			NodeName:                  types.NodeName(node.Name),
			NodeUID:                   node.UID,
			MaxExpirationSeconds:      c.source.MaxExpirationSeconds,
			StubPKCS10Request:         proof,
			UnverifiedUserAnnotations: c.source.UserAnnotations,
		},
	}

	// The answer may come before that of the creation.
	r.expect(c, made)
	if err := r.cfg.API.Create(ctx, object); err != nil {
		r.drop(c, made)
		return fmt.Errorf("create a PodCertificateRequest for signer %q: %w", c.source.SignerName, err)
	}
	return nil
}

// newRequest makes a key of that type and what proves its possession. Few keys are made at a time.
func (r *round) newRequest(ctx context.Context, kind string) (*request, []byte, error) {
	select {
	case r.keys <- struct{}{}:
		defer func() { <-r.keys }()
	case <-ctx.Done():
		return nil, nil, fmt.Errorf("wait for the keys of others: %w", context.Cause(ctx))
	}

	key, encoded, err := newKey(kind)
	if err != nil {
		return nil, nil, err
	}
	proof, err := prove(key)
	if err != nil {
		return nil, nil, fmt.Errorf("prove the possession of a key: %w", err)
	}

	// The name is chosen here, so that an answer is recognized however early it comes. A request of an
	// earlier agent, whose key is lost, has another name.
	suffix := make([]byte, 8)
	_, _ = rand.Read(suffix)
	return &request{
		name:    "req-" + hex.EncodeToString(suffix),
		key:     key,
		pemKey:  encoded,
		checkAt: time.Now().Add(checkAfter + jitter(maxJitter)),
	}, proof, nil
}

// expect makes the request known before it is there.
func (r *round) expect(c *certificate, made *request) {
	r.mu.Lock()
	defer r.mu.Unlock()
	c.request = made
	r.Keeper.asked[r.pod.Namespace+"/"+made.name] = c
	r.volume.pod.asked++
}

// drop forgets a request that could not be made.
func (r *round) drop(c *certificate, made *request) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if c.request == made {
		r.release(c, r.pod.Namespace+"/"+made.name)
		c.request = nil
	}
}

// check looks for a request that has had no answer for long.
func (r *round) check(ctx context.Context, c *certificate) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()

	r.mu.Lock()
	var name string
	if c.request != nil {
		name = c.request.name
		c.request.checkAt = time.Now().Add(checkAfter)
	}
	r.mu.Unlock()
	if name == "" {
		return nil
	}
	return r.read(ctx, r.pod.Namespace, name)
}
