package usage

import (
	"maps"
	"os"
	"path"
	"strings"

	"k8s.io/apimachinery/pkg/types"
)

// finder finds the groups of pods and containers, and remembers them: they do not move.
type finder struct {
	groups Groups
	tree   Tree

	pods map[types.UID]string
	// byID has the group of each container and sandbox; empty for a sandbox that has none.
	byID map[string]string
}

// look finds the groups of pods, and forgets all others. What is found once is not looked for again.
func (f *finder) look(pods []Pod) {
	f.lookForPods(pods)
	known := f.byID
	f.byID = make(map[string]string, len(known))
	for i := range pods {
		p := &pods[i]
		var missing bool
		for _, id := range p.ids() {
			group, ok := known[id]
			if ok {
				f.byID[id] = group
			}

			missing = missing || !ok
		}

		if missing {
			f.lookIn(p)
		}
	}
}

func (p *Pod) ids() []string {
	out := []string{p.SandboxID}
	for _, c := range p.Containers {
		out = append(out, c.ID)
	}
	return out
}

// lookForPods lists the groups of all pods if that of one is not known. Without a list, some have no figures
// until the next pass.
func (f *finder) lookForPods(pods []Pod) {
	for i := range pods {
		if _, ok := f.pods[types.UID(pods[i].UID)]; ok {
			continue
		}
		if all, err := f.tree.Groups(); err == nil {
			f.pods = maps.Clone(all)
		}

		return
	}
}

// lookIn finds the groups in that of a pod. Runtimes name them after the ID: ID, PREFIX-ID.scope.
func (f *finder) lookIn(p *Pod) {
	group := f.pods[types.UID(p.UID)]
	if group == "" {
		return
	}

	entries, err := os.ReadDir(f.groups.Dir("memory", group))
	if err != nil {
		return
	}

	found := map[string]string{}
	for _, e := range entries {
		if e.IsDir() {
			name := strings.TrimSuffix(e.Name(), ".scope")
			found[name[strings.LastIndexByte(name, '-')+1:]] = path.Join(group, e.Name())
		}
	}

	for _, id := range p.ids() {
		if at := found[id]; at != "" || id == p.SandboxID {
			f.byID[id] = at
		}
	}
}
