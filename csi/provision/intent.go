package provision

import (
	"fmt"
	"sync"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/protobuf/encoding/protojson"
	corev1 "k8s.io/api/core/v1"

	"github.com/trivet-node/trivet/internal/durable"
)

// intent is a call of CreateVolume that may have made a volume for which no PersistentVolume exists yet. It
// is removed when the object exists, or when the volume is deleted because nobody wants it any more.
type intent struct {
	Namespace string `json:"namespace"`
	Claim     string `json:"claim"`
	UID       string `json:"uid"`
	// CreateVolumeRequest as protobuf JSON: repeated, it returns the volume's ID
	Request []byte `json:"request"`

	Policy corev1.PersistentVolumeReclaimPolicy `json:"policy,omitempty"`
}

func (i intent) key() string { return i.Namespace + "/" + i.Claim }

func newIntent(f facts, req *csi.CreateVolumeRequest) (intent, error) {
	data, err := protojson.Marshal(req)
	return intent{
		Namespace: f.claim.Namespace,
		Claim:     f.claim.Name,
		UID:       string(f.claim.UID),
		Request:   data,
		Policy:    policyOf(f.class),
	}, err
}

func (i intent) request() (*csi.CreateVolumeRequest, error) {
	req := &csi.CreateVolumeRequest{}
	return req, protojson.Unmarshal(i.Request, req)
}

// intents are all of a node, on disk and in memory. They are safe for concurrent use; calls for one volume
// must not overlap.
type intents struct {
	store *durable.Store[intent]

	// mu guards pending.
	mu      sync.Mutex
	pending map[string]intent // by name of the volume
}

// openIntents reads those of an earlier process.
func openIntents(dir string) (*intents, []durable.Unreadable, error) {
	store, err := durable.OpenStore[intent](dir, false)
	if err != nil {
		return nil, nil, fmt.Errorf("open provisioning records: %w", err)
	}
	pending, unreadable, err := store.List()
	if err != nil {
		return nil, nil, fmt.Errorf("read provisioning records: %w", err)
	}
	return &intents{store: store, pending: pending}, unreadable, nil
}

func (s *intents) get(volume string) (intent, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	i, ok := s.pending[volume]
	return i, ok
}

func (s *intents) has(volume string) bool {
	_, ok := s.get(volume)
	return ok
}

// add records an intent, unless there is one for the volume.
func (s *intents) add(volume string, i intent) error {
	if s.has(volume) {
		return nil
	}
	if err := s.store.Put(volume, i); err != nil {
		return fmt.Errorf("record that volume %s is being made: %w", volume, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pending[volume] = i
	return nil
}

func (s *intents) remove(volume string) error {
	if !s.has(volume) {
		return nil
	}
	if err := s.store.Delete(volume); err != nil {
		return fmt.Errorf("remove the record that volume %s is being made: %w", volume, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.pending, volume)
	return nil
}

// of returns the intents for a claim by its key, by name of the volume. A claim of the same name with another
// UID is another claim. The key "" returns all.
func (s *intents) of(claim string) map[string]intent {
	s.mu.Lock()
	defer s.mu.Unlock()
	found := map[string]intent{}
	for volume, i := range s.pending {
		if claim == "" || claim == i.key() {
			found[volume] = i
		}
	}
	return found
}
