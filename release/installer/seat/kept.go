package seat

import (
	"context"
	"fmt"
)

// agent is the unit of the node's agent: the one that is kept, else the one that is seen.
func (h Host) agent(ctx context.Context) (string, error) {
	kept, err := h.keptAgent()
	if err != nil || kept != "" {
		return kept, err
	}

	// One may be enabled while the other one has its place.
	for _, is := range []func(context.Context, string) (bool, error){h.Units.Active, h.Units.Enabled} {
		for _, unit := range []string{kubeletUnit, nodeUnit} {
			if yes, err := is(ctx, unit); err != nil || yes {
				return unit, err
			}
		}
	}
	return "", fmt.Errorf("the agent of this node is neither %s nor %s", kubeletUnit, nodeUnit)
}

// keptAgent is the unit that was kept; empty: none was.
func (h Host) keptAgent() (string, error) {
	store, err := memory[string](h)
	if err != nil {
		return "", err
	}
	unit, err := store.Get(beforeAgent)
	if isMissing(err) {
		return "", nil
	}
	return unit, err
}

const beforeAgent = "agent"

// keepAgent keeps which unit is the agent's until forgetAgent: one that is not enabled cannot be found any
// more once it was stopped.
func (h Host) keepAgent(ctx context.Context) error {
	unit, err := h.agent(ctx)
	if err != nil {
		return err
	}
	store, err := memory[string](h)
	if err != nil {
		return err
	}
	return store.Put(beforeAgent, unit)
}

func (h Host) forgetAgent() error {
	store, err := memory[string](h)
	if err != nil {
		return err
	}
	return store.Delete(beforeAgent)
}

// startAgent has the agent run.
func (h Host) startAgent(ctx context.Context) error {
	agent, err := h.agent(ctx)
	if err != nil {
		return err
	}
	return h.Units.StartSoon(ctx, agent)
}

// resumeAgent has the agent run if an exchange was begun that may have stopped it.
func (h Host) resumeAgent(ctx context.Context) error {
	kept, err := h.keptAgent()
	if err != nil || kept == "" {
		return err
	}
	return h.Units.StartSoon(ctx, kept)
}
