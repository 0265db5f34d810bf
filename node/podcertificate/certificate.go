package podcertificate

import (
	"crypto"
	"fmt"
	"math/rand/v2"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// certificate is that of one source of a pod. It decides and does nothing; its keeper's lock guards it.
type certificate struct {
	volume *volume
	source *v1.PodCertificateProjection

	// pair is what the source shows, nil before the first one is issued.
	pair *pair

	// request has no answer yet; nil: there is none.
	request *request

	// ended is the signer's last word, nil if there is none.
	ended *ending

	// askAt is the time before which nothing is asked for again.
	askAt time.Time

	// toldOverdue and toldExpired mean that there was an event about the pair.
	toldOverdue, toldExpired bool
}

// Credential is a private key and the certificate chain for it, both in PEM.
type Credential struct {
	// Key is one block with a key in PKCS #8.
	Key []byte

	// Chain are the certificates, the one of the key first.
	Chain []byte
}

// String does not show the key.
func (Credential) String() string { return "a credential" }

// GoString does not show the key.
func (c Credential) GoString() string { return c.String() }

// pair is a credential and when it is to be renewed.
type pair struct {
	Credential
	renewAt  time.Time
	notAfter time.Time
}

// request is one that the signer has not answered.
type request struct {
	name   string
	key    crypto.Signer
	pemKey []byte

	// checkAt is when it is looked for, as the watch may have missed its end.
	checkAt time.Time
}

// ending is that a request was denied or failed. That is final for the pod.
type ending struct {
	// kind is the condition, Denied or Failed.
	kind    string
	reason  string
	message string
}

// Error is what kubelet says of a volume whose certificate it cannot get.
func (e *ending) Error() string {
	verb := "failed"
	if e.kind == certificatesv1.PodCertificateRequestConditionTypeDenied {
		verb = "denied"
	}
	return fmt.Sprintf("PodCertificateRequest was permanently %s: reason=%q message=%q",
		verb, e.reason, e.message)
}

// event is what users are told about the request.
func (e *ending) event(request string) string {
	verb := "failed"
	if e.kind == certificatesv1.PodCertificateRequestConditionTypeDenied {
		verb = "was denied"
	}
	return fmt.Sprintf("PodCertificateRequest %s %s, reason=%q, message=%q",
		request, verb, e.reason, e.message)
}

// Times, as kubelet's.
const (
	// maxJitter spreads renewals.
	maxJitter = 5 * time.Minute

	// checkAfter is when a request without an answer is looked for.
	checkAfter = 10 * time.Minute

	// overdueAfter is when a renewal that was not possible is overdue.
	overdueAfter = 10 * time.Minute
)

// askAgainAfter is the pause before a renewal that was not possible is tried again, up to twice as long. It
// is also the least age of a certificate that is renewed, whatever the signer says.
const askAgainAfter = time.Minute

// jitter is a random part of the longest one.
func jitter(longest time.Duration) time.Duration { return rand.N(longest) }

// action is what is to be done about a certificate.
type action int

const (
	nothing action = iota

	// ask makes a new key and a request for it.
	ask

	// check looks for the request.
	check
)

// due returns what is to be done now.
func (c *certificate) due(now time.Time) action {
	switch {
	case c.ended != nil:
		return nothing
	case c.request != nil:
		if now.Before(c.request.checkAt) {
			return nothing
		}
		return check
	case now.Before(c.askAt):
		return nothing
	case c.pair != nil && now.Before(c.pair.renewAt):
		return nothing
	}
	return ask
}

// nextAt returns when something is to be done next, zero for never. What could be done already had to give
// way: it is tried again after a pause.
func (c *certificate) nextAt(now time.Time) time.Time {
	if c.ended != nil || c.pair == nil {
		return time.Time{}
	}

	next := later(c.pair.renewAt, c.askAt)
	if c.request != nil {
		next = c.request.checkAt
	}
	if !next.After(now) {
		next = now.Add(askAgainAfter)
	}

	// Events are sent in time.
	if at := c.pair.renewAt.Add(overdueAfter); !c.toldOverdue && at.Before(next) {
		next = later(at, now)
	}
	if at := c.pair.notAfter; !c.toldExpired && at.Before(next) {
		next = later(at, now)
	}
	return next
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// warning is an event about a pair.
type warning struct{ reason, message string }

// Events of kubelet's.
var (
	overdue = warning{"CertificateOverdueForRefresh", "PodCertificate refresh overdue"}
	expired = warning{"CertificateExpired", "PodCertificate expired"}
)

// warnings returns the events that are due, each of them once for a pair.
func (c *certificate) warnings(now time.Time) []warning {
	if c.pair == nil || c.ended != nil {
		return nil
	}

	var out []warning
	if !c.toldOverdue && !now.Before(c.pair.renewAt.Add(overdueAfter)) {
		c.toldOverdue = true
		out = append(out, overdue)
	}
	if !c.toldExpired && !now.Before(c.pair.notAfter) {
		c.toldExpired = true
		out = append(out, expired)
	}
	return out
}

// state is the state in kubelet's metric.
func (c *certificate) state(now time.Time) string {
	switch {
	case c.ended != nil && c.ended.kind == certificatesv1.PodCertificateRequestConditionTypeDenied:
		return "denied"
	case c.ended != nil:
		return "failed"
	case c.pair == nil:
		return "not_yet_issued"
	case now.After(c.pair.notAfter):
		return "expired"
	case now.After(c.pair.renewAt.Add(overdueAfter)):
		return "overdue_for_refresh"
	}
	return "fresh"
}

// answer takes what the API shows of the request. It reports whether that is the signer's answer.
func (c *certificate) answer(shown *certificatesv1.PodCertificateRequest, now time.Time) bool {
	for i := range shown.Status.Conditions {
		condition := &shown.Status.Conditions[i]
		if condition.Status != metav1.ConditionTrue {
			continue
		}

		switch condition.Type {
		case certificatesv1.PodCertificateRequestConditionTypeDenied,
			certificatesv1.PodCertificateRequestConditionTypeFailed:
			c.end(condition.Type, condition.Reason, condition.Message)
			return true
		case certificatesv1.PodCertificateRequestConditionTypeIssued:
			c.take(&shown.Status, now)
			return true
		}
	}
	return false
}

func (c *certificate) end(kind, reason, message string) {
	c.ended = &ending{kind: kind, reason: reason, message: message}
	c.request = nil
}

// take takes the certificate that was issued. One that cannot be used is the end: the signer would issue such
// a one again.
func (c *certificate) take(status *certificatesv1.PodCertificateRequestStatus, now time.Time) {
	issued, err := readChain([]byte(status.CertificateChain), c.request.key.Public())
	if err != nil {
		c.end(certificatesv1.PodCertificateRequestConditionTypeFailed, "InvalidCertificate", err.Error())
		return
	}

	renewAt := now
	if status.BeginRefreshAt != nil {
		renewAt = status.BeginRefreshAt.Time
	}

	c.pair = &pair{
		Credential: Credential{Key: c.request.pemKey, Chain: issued.pem},
		renewAt:    renewal(renewAt.Add(jitter(maxJitter)), issued.notAfter, now),
		notAfter:   issued.notAfter,
	}
	c.request = nil
	c.toldOverdue, c.toldExpired = false, false
}

// renewal is at the time that the signer wishes, but while the certificate is valid, and not at once.
func renewal(wished, notAfter, now time.Time) time.Time {
	if latest := notAfter.Add(-askAgainAfter); wished.After(latest) {
		wished = latest
	}
	return later(wished, now.Add(askAgainAfter))
}
