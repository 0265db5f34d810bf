package probe

import (
	"slices"
	"sync"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/trivet-node/trivet/node/plan"
	"github.com/trivet-node/trivet/node/queue"
)

// looks is a queue that holds the reasons of looks.
type looks chan queue.Reason

func (l looks) Look(_ types.UID, why queue.Reason) { l <- why }

// events keeps what users are told, as "REASON: message".
type events struct {
	mu   sync.Mutex // guards said
	said []string
}

func (e *events) Pod(_ *v1.Pod, _, _, reason, message string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.said = append(e.said, reason+": "+message)
}

func (e *events) all() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.said)
}

// health is what is known of a container of the pod in the tests.
func (m *Prober) health(id string) plan.Health {
	m.mu.Lock()
	defer m.mu.Unlock()
	if t := m.pods["u"][id]; t != nil {
		return t.health
	}
	return plan.Health{}
}

// noPods counts for pods that are gone at once.
func noPods() *Results { return NewResults(func() []*v1.Pod { return nil }) }
