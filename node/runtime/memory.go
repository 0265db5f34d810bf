package runtime

import (
	"maps"
	"sync"

	"github.com/trivet-node/trivet/node/plan"
)

// memory is what is known of containers and sandboxes and cannot change while their state does not.
type memory struct {
	// mu guards what follows.
	mu sync.Mutex

	// containers are those that run or have ended, by ID.
	containers map[string]plan.Container
	// addresses are those of ready sandboxes, by ID.
	addresses map[string][]string

	// forgotten counts the calls of forgetContainer: what was asked before such a call may be out of date.
	forgotten int
}

// container returns what is known of a container that is in this state, and the present, for keepContainer.
func (m *memory) container(id string, state plan.State) (c plan.Container, known bool, present int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	c, known = m.containers[id]
	return c, known && c.State == state, m.forgotten
}

// keepContainer remembers a container, unless one was forgotten since the question was asked, then.
func (m *memory) keepContainer(c plan.Container, then int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if then == m.forgotten {
		m.containers[c.ID] = c
	}
}

// forgetContainer forgets a container that has been changed or removed.
func (m *memory) forgetContainer(id string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.containers, id)
	m.forgotten++
}

// sandbox returns the addresses of a ready sandbox.
func (m *memory) sandbox(id string) (ips []string, known bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	ips, known = m.addresses[id]
	return ips, known
}

func (m *memory) keepSandbox(id string, ips []string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.addresses[id] = ips
}

func (m *memory) forgetSandbox(id string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.addresses, id)
}

// forgetAllBut forgets what is gone. present has the IDs of all containers and sandboxes that there are.
func (m *memory) forgetAllBut(present map[string]bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	maps.DeleteFunc(m.containers, func(id string, _ plan.Container) bool { return !present[id] })
	maps.DeleteFunc(m.addresses, func(id string, _ []string) bool { return !present[id] })
}
