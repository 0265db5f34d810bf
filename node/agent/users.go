package agent

import (
	"context"

	"github.com/trivet-node/trivet/internal/program"
	"github.com/trivet-node/trivet/node/machine"
	"github.com/trivet-node/trivet/node/userns"
)

// newUsers makes what gives pods their user namespaces.
func newUsers(ctx context.Context, s *surroundings, in podInputs) (*userns.Ranges, error) {
	perPod := s.cfg.Node.UsersPerPod
	available, err := userns.Available(ctx, perPod)
	if err == nil {
		pods := maxPods(s.cfg.Node.MaxPods, s.cfg.Node.PodsPerCore, int64(machine.CPUs()))
		err = available.Check(perPod, pods)
	}
	if err != nil {
		return nil, &program.CantRunError{
			What: "user namespaces of pods: " + err.Error(),
			Do:   "give the user kubelet one range in /etc/subuid, and the same in /etc/subgid",
		}
	}

	return userns.Open(userns.Config{
		RootDir:  s.cfg.RootDir,
		Range:    available,
		PerPod:   perPod,
		Handlers: handlersOf(s, in.status),
		Log:      s.log,
	})
}
