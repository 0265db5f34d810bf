// Package podcertificate has certificates issued for pods (KEP-4317): for each podCertificate source of a
// projected volume it makes a key, asks a signer for a certificate by a PodCertificateRequest, and does so
// again before that ends. A key is in memory and in the pod's volume, which is a tmpfs, and nowhere else: not
// in the API, on disk, in a log or an event. What a volume of an earlier agent shows is gone on with.
package podcertificate

import (
	"context"
	"errors"
	"iter"
	"log/slog"
	"runtime"
	"sync"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// API is what the keeper needs of the API server (Requests).
type API interface {
	// Account returns the UID of a service account.
	Account(ctx context.Context, namespace, name string) (types.UID, error)

	Create(ctx context.Context, r *certificatesv1.PodCertificateRequest) error
	Get(ctx context.Context, namespace, name string) (*certificatesv1.PodCertificateRequest, error)

	// Watch calls seen with each state of each request of the node, and gone with those that were deleted,
	// until ctx ends.
	Watch(ctx context.Context, seen, gone func(*certificatesv1.PodCertificateRequest))
}

// Events is where the keeper tells about pods (event.Recorder).
type Events interface {
	Pod(pod *v1.Pod, container, kind, reason, message string)
}

// Config is what a Keeper needs.
type Config struct {
	API API

	// Node returns the node's object, nil while there is none.
	Node func() *v1.Node

	Events Events

	// Changed is called, without locks held, when a volume of the pod shows something old.
	Changed func(pod types.UID)

	Log *slog.Logger
}

// patience is how long Volume waits for signers. Most answer within milliseconds; what takes longer is a
// reason to tell the user.
const patience = 5 * time.Second

// maxAsked is how many requests of one pod may be without an answer at a time: a pod may have some ten
// thousand sources, as many as its object holds.
const maxAsked = 32

// ErrNotIssued is the error of a certificate that the signer has not issued yet.
var ErrNotIssued = errors.New("credential bundle is not issued yet")

// Keeper keeps the certificates of the pods of a node.
type Keeper struct {
	cfg Config

	// keys has a value for each key that is being made: those of RSA take a second of a CPU.
	keys chan struct{}

	// wanted has a value when the watch of requests must begin.
	wanted chan struct{}

	// mu guards what follows.
	mu   sync.Mutex
	pods map[types.UID]*pod

	// asked are the certificates whose request has no answer yet, by NAMESPACE/NAME of the request.
	asked map[string]*certificate

	// stopWatch ends the watch, nil while there is none.
	stopWatch context.CancelFunc
}

// pod is what is known of a pod.
type pod struct {
	// about is the newest version that was seen.
	about   *v1.Pod
	volumes map[string]*volume

	// asked is how many requests have no answer yet.
	asked int
}

// volume is a projected volume with podCertificate sources.
type volume struct {
	pod *pod

	// certificates are those of the sources by their indexes, nil for sources of other types.
	certificates []*certificate

	// record is the file with the times of renewal, empty for none. unrecorded means that it is out of date.
	record     string
	unrecorded bool

	// waiting is how many calls wait for changed, which is closed and replaced with each answer.
	waiting int
	changed chan struct{}
}

// New returns a keeper without certificates.
func New(cfg Config) *Keeper {
	return &Keeper{
		cfg:    cfg,
		keys:   make(chan struct{}, max(1, runtime.NumCPU()/2)),
		wanted: make(chan struct{}, 1),
		pods:   map[types.UID]*pod{},
		asked:  map[string]*certificate{},
	}
}

// Run watches the node's requests, as long as pods have certificates, until ctx ends.
func (k *Keeper) Run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-k.wanted:
		}

		watching, stop := context.WithCancel(ctx)
		if k.beginWatch(stop) {
			k.cfg.API.Watch(watching, k.see, k.gone)
		}
		stop()
	}
}

// beginWatch reports whether there are pods that a watch is for. Forget ends it with the last one.
func (k *Keeper) beginWatch(stop context.CancelFunc) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.stopWatch = stop
	return len(k.pods) > 0
}

// Shows reports whether a volume has podCertificate sources.
func Shows(v *v1.Volume) bool {
	if v.Projected == nil {
		return false
	}
	for i := range v.Projected.Sources {
		if v.Projected.Sources[i].PodCertificate != nil {
			return true
		}
	}
	return false
}

// Volume returns the credentials of a volume's sources by their indexes, empty ones for sources of other
// types. It asks for what is missing or due for renewal, and waits for what is missing, but not for long:
// ErrNotIssued means that Changed will be called. What is due is returned until there is something newer.
func (k *Keeper) Volume(ctx context.Context, about *v1.Pod, v *v1.Volume) ([]Credential, error) {
	r := round{Keeper: k, pod: about, volume: k.hold(about, v)}
	timeout := time.NewTimer(patience)
	defer timeout.Stop()

	for {
		changed := k.beginWait(r.volume)
		err := r.do(ctx)
		if !errors.Is(err, ErrNotIssued) || !r.asked {
			k.endWait(r.volume)
			return k.collect(r.volume, err)
		}

		select {
		case <-changed:
			k.endWait(r.volume)
		case <-timeout.C:
			// What changes from here on leads to another call.
			k.endWait(r.volume)
			return k.collect(r.volume, r.do(ctx))
		case <-ctx.Done():
			k.endWait(r.volume)
			return nil, context.Cause(ctx)
		}
	}
}

// hold returns what is known of the volume, and makes it known.
func (k *Keeper) hold(about *v1.Pod, v *v1.Volume) *volume {
	k.mu.Lock()
	defer k.mu.Unlock()

	p := k.pods[about.UID]
	if p == nil {
		p = &pod{volumes: map[string]*volume{}}
		k.pods[about.UID] = p
		k.watch()
	}

	p.about = about
	if p.volumes[v.Name] == nil {
		p.volumes[v.Name] = newVolume(p, v)
	}
	return p.volumes[v.Name]
}

// watch has Run watch, if it does not yet. The caller holds the lock.
func (k *Keeper) watch() {
	if len(k.pods) > 1 {
		return
	}
	select {
	case k.wanted <- struct{}{}:
	default:
	}
}

func newVolume(p *pod, v *v1.Volume) *volume {
	out := &volume{
		pod:          p,
		certificates: make([]*certificate, len(v.Projected.Sources)),
		changed:      make(chan struct{}),
	}
	for i := range v.Projected.Sources {
		if source := v.Projected.Sources[i].PodCertificate; source != nil {
			out.certificates[i] = &certificate{volume: out, source: source}
		}
	}
	return out
}

// all yields the certificates of the volume with the indexes of their sources.
func (v *volume) all() iter.Seq2[int, *certificate] {
	return func(yield func(int, *certificate) bool) {
		for i, c := range v.certificates {
			if c != nil && !yield(i, c) {
				return
			}
		}
	}
}

// beginWait returns what is closed with the next answer for the volume. Until endWait nobody else is told.
func (k *Keeper) beginWait(v *volume) <-chan struct{} {
	k.mu.Lock()
	defer k.mu.Unlock()
	v.waiting++
	return v.changed
}

func (k *Keeper) endWait(v *volume) {
	k.mu.Lock()
	defer k.mu.Unlock()
	v.waiting--
}

// notify wakes those who wait for the volume. It reports whether there are none, so that the caller must call
// Changed, without the lock, which it holds now.
func (k *Keeper) notify(v *volume) (nobody bool) {
	close(v.changed)
	v.changed = make(chan struct{})
	return v.waiting == 0
}

// collect returns the credentials of a volume, none with an error.
func (k *Keeper) collect(v *volume, err error) ([]Credential, error) {
	if err != nil {
		return nil, err
	}

	k.mu.Lock()
	out := make([]Credential, len(v.certificates))
	for i, c := range v.all() {
		out[i] = c.pair.Credential
	}
	path, times := v.toRecord()
	k.mu.Unlock()

	// Without it the next agent renews at once.
	if path != "" {
		if err := writeRecord(path, times); err != nil {
			k.cfg.Log.Warn("times of renewal are not recorded", "err", err)
		}
	}
	return out, nil
}

// NextAt returns when Volume must be called again for a volume of the pod, zero for never.
func (k *Keeper) NextAt(uid types.UID) time.Time {
	k.mu.Lock()
	defer k.mu.Unlock()

	p := k.pods[uid]
	if p == nil {
		return time.Time{}
	}

	now, first := time.Now(), time.Time{}
	for _, v := range p.volumes {
		for _, c := range v.all() {
			if at := c.nextAt(now); !at.IsZero() && (first.IsZero() || at.Before(first)) {
				first = at
			}
		}
	}
	return first
}

// Forget drops the certificates of a pod that is gone. Its requests are deleted with the pod, which owns
// them, or by a controller when they are 15 minutes old.
func (k *Keeper) Forget(uid types.UID) {
	k.mu.Lock()
	defer k.mu.Unlock()

	p := k.pods[uid]
	if p == nil {
		return
	}

	for name, c := range k.asked {
		if c.volume.pod == p {
			delete(k.asked, name)
		}
	}

	delete(k.pods, uid)
	if len(k.pods) == 0 && k.stopWatch != nil {
		k.stopWatch()
	}
}

// Kind is a signer and the state of a certificate, as kubelet's metric names them.
type Kind struct{ Signer, State string }

// maxKinds bounds what a scrape shows: the names of signers are the tenants'.
const maxKinds = 1000

// States returns how many certificates there are of each kind.
func (k *Keeper) States() map[Kind]int {
	k.mu.Lock()
	defer k.mu.Unlock()

	now, out := time.Now(), map[Kind]int{}
	for _, p := range k.pods {
		for _, v := range p.volumes {
			for _, c := range v.all() {
				kind := Kind{Signer: c.source.SignerName, State: c.state(now)}
				if out[kind] == 0 && len(out) >= maxKinds {
					kind.Signer = ""
				}
				out[kind]++
			}
		}
	}
	return out
}
