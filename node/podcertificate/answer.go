package podcertificate

import (
	"context"
	"fmt"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// see takes a request as the API shows it, of which only those without an answer matter.
func (k *Keeper) see(shown *certificatesv1.PodCertificateRequest) {
	name := shown.Namespace + "/" + shown.Name
	k.mu.Lock()
	c := k.asked[name]
	if c == nil || !c.answer(shown, time.Now()) {
		k.mu.Unlock()
		return
	}

	k.release(c, name)
	v, ended := c.volume, c.ended
	v.unrecorded = v.unrecorded || ended == nil
	about := v.pod.about
	nobody := k.notify(v)
	k.mu.Unlock()

	k.cfg.Log.Debug("request for a certificate is answered",
		"pod", about.Namespace+"/"+about.Name, "request", shown.Name, "issued", ended == nil)
	if ended != nil {
		k.cfg.Events.Pod(about, "", v1.EventTypeWarning, ended.kind, ended.event(name))
	}
	if nobody {
		k.cfg.Changed(about.UID)
	}
}

// gone takes that a request was deleted. If it had no answer it is made again, but not at once: who deletes
// it may do so again.
func (k *Keeper) gone(shown *certificatesv1.PodCertificateRequest) {
	k.lost(shown.Namespace + "/" + shown.Name)
}

// lost takes that there is no request of that name.
func (k *Keeper) lost(name string) {
	k.mu.Lock()
	c := k.asked[name]
	if c == nil {
		k.mu.Unlock()
		return
	}

	k.release(c, name)
	c.request = nil
	c.askAt = time.Now().Add(askAgainAfter)
	uid, nobody := c.volume.pod.about.UID, k.notify(c.volume)
	k.mu.Unlock()

	// That sets the time at which it is made again.
	if nobody {
		k.cfg.Changed(uid)
	}
}

// release takes a request from those without an answer. The caller holds the lock.
func (k *Keeper) release(c *certificate, name string) {
	delete(k.asked, name)
	c.volume.pod.asked--
}

// read reads a request, of which no answer has come.
func (k *Keeper) read(ctx context.Context, namespace, name string) error {
	shown, err := k.cfg.API.Get(ctx, namespace, name)
	switch {
	case apierrors.IsNotFound(err):
		k.lost(namespace + "/" + name)
		return nil
	case err != nil:
		return fmt.Errorf("read PodCertificateRequest %s/%s: %w", namespace, name, err)
	}

	k.see(shown)
	return nil
}
