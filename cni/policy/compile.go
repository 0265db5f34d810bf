package policy

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
)

// Compiler compiles one state of the cluster after the other. It is not safe for concurrent use.
type Compiler struct{ numbers numbers }

// NewCompiler returns a Compiler that has compiled nothing yet.
func NewCompiler() *Compiler { return &Compiler{} }

// Compile returns what the kernel is to have for a state of the cluster.
func (c *Compiler) Compile(in Cluster) *State {
	w := newWork(in)
	w.findSubjects()
	profiles := c.number(w.groupSubjects())

	s := &State{
		Numbers:    [2]map[netip.Addr]uint32{{}, {}},
		Profiles:   map[uint32]*Profile{},
		Namespaces: w.namespaces,
	}

	for _, p := range profiles {
		for _, pod := range p.pods {
			w.assign(s, p, pod)
		}
	}

	w.compileAll(w.tenants(profiles))
	for _, p := range profiles {
		s.Profiles[p.number] = cmp.Or(p.granted, empty(p.direction))
	}

	s.Problems = w.problems()
	return s
}

// profile is what is common to local pods in a direction.
type profile struct {
	direction Direction
	policies  []*Policy
	pods      []*Pod
	number    uint32
	// granted is nil for nothing.
	granted *Profile
}

// number gives the profiles their numbers.
func (c *Compiler) number(all []*profile) []*profile {
	groups := make([][]subject, len(all))
	for i, p := range all {
		for _, pod := range p.pods {
			groups[i] = append(groups[i], subject{pod: podKey(pod), direction: p.direction})
		}
	}

	for i, id := range c.numbers.assign(groups) {
		all[i].number = id
	}

	return all
}

func podKey(p *Pod) string { return p.Namespace + "/" + p.Name }

// work is one compilation.
type work struct {
	in         Cluster
	policies   []*Policy
	byNS       map[string][]*Pod
	localByNS  map[string][]*Pod
	owners     map[netip.Addr]*Pod
	namespaces map[string]bool

	// selected are the policies of each local pod.
	selected map[*Pod][2][]*Policy
	// used are policies that select a pod of this node, by direction.
	used [2]map[*Policy]bool

	// byPort are the pods that have a port under a name, nil while nobody has asked.
	byPort map[NamedPort][]*Pod

	// refused are policies that exceed a limit here, and why.
	refused map[*Policy]string
}

func newWork(in Cluster) *work {
	w := &work{
		in:         in,
		policies:   slices.SortedFunc(slices.Values(in.Policies), comparePolicies),
		byNS:       map[string][]*Pod{},
		localByNS:  map[string][]*Pod{},
		owners:     map[netip.Addr]*Pod{},
		namespaces: map[string]bool{},
		selected:   map[*Pod][2][]*Policy{},
		used:       [2]map[*Policy]bool{{}, {}},
		refused:    map[*Policy]string{},
	}

	for _, pod := range in.Pods {
		w.byNS[pod.Namespace] = append(w.byNS[pod.Namespace], pod)
		if pod.Local {
			w.localByNS[pod.Namespace] = append(w.localByNS[pod.Namespace], pod)
		}
		for _, a := range pod.Addresses {
			if w.owners[a] == nil {
				w.owners[a] = pod
			}
		}
	}

	for _, p := range w.policies {
		w.namespaces[p.Namespace] = true
	}

	return w
}

// findSubjects finds the policies of each local pod. A pod of which nothing is known has all policies of its
// namespace, and nothing that they allow.
func (w *work) findSubjects() {
	needs := map[string]int{}
	for _, p := range w.policies {
		needs[p.Namespace] += len(w.localByNS[p.Namespace]) * costOf(p.Pods)
	}
	share := min(maxEffort, shareOf(slices.Collect(maps.Values(needs)), maxNodeEffort))

	spent := map[string]int{}
	for _, p := range w.policies {
		pods := w.localByNS[p.Namespace]
		spent[p.Namespace] += len(pods) * costOf(p.Pods)
		if spent[p.Namespace] > share {
			// It is not looked whom it is about: nobody in the namespace is better off for that.
			w.refuse(p, tooMuchFor(share))
		}

		for _, pod := range pods {
			if pod.Unknown || w.refused[p] != "" || p.Pods.Matches(pod.Labels) {
				w.isolate(p, pod)
			}
		}
	}
}

// isolate notes that a policy selects a pod of this node.
func (w *work) isolate(p *Policy, pod *Pod) {
	lists := w.selected[pod]
	for _, d := range Directions {
		if p.Isolates[d] {
			lists[d] = append(lists[d], p)
			w.used[d][p] = w.used[d][p] || !pod.Unknown
		}
	}
	w.selected[pod] = lists
}

// groupSubjects returns the profiles: pods with the same policies have the same one, and the same ports under
// the names that ingress rules use.
func (w *work) groupSubjects() []*profile {
	var all []*profile
	byKey := map[string]*profile{}
	for _, pod := range w.in.Pods {
		for _, d := range Directions {
			policies := w.selected[pod][d]
			if len(policies) == 0 {
				continue
			}

			key := profileKey(pod, d, policies)
			p := byKey[key]
			if p == nil {
				p = &profile{direction: d, policies: policies}
				byKey[key] = p
				all = append(all, p)
			}

			p.pods = append(p.pods, pod)
		}
	}

	return all
}

func profileKey(pod *Pod, d Direction, policies []*Policy) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d", d)
	if pod.Unknown {
		return b.String() + " unknown"
	}

	named := false
	for _, p := range policies {
		b.WriteString(" " + p.Key())
		named = named || p.usesNames(d)
	}
	if d == Ingress && named {
		fmt.Fprintf(&b, " %v", sortedPorts(pod.Ports))
	}

	return b.String()
}

func sortedPorts(ports []NamedPort) []NamedPort {
	return slices.SortedFunc(slices.Values(ports), func(a, b NamedPort) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Protocol, b.Protocol),
			cmp.Compare(a.Number, b.Number))
	})
}

// usesNames reports whether a rule of the direction has a port by name.
func (p *Policy) usesNames(d Direction) bool {
	for _, r := range p.Rules[d] {
		if slices.ContainsFunc(r.Ports, func(x Port) bool { return x.Name != "" }) {
			return true
		}
	}
	return false
}

// refuse leaves out a policy's rules. The first reason counts.
func (w *work) refuse(p *Policy, why string) {
	if w.refused[p] == "" {
		w.refused[p] = why
	}
}

// assign gives a pod's addresses their profile.
func (w *work) assign(s *State, p *profile, pod *Pod) {
	for _, a := range pod.Addresses {
		if w.owners[a] == pod {
			s.Numbers[p.direction][a] = p.number
		}
	}
}

// problems are the policies that are not in force as they are.
func (w *work) problems() (all []string) {
	for _, p := range w.policies {
		why := p.Refused
		if why == "" {
			why = w.refused[p]
		}
		if why != "" {
			const format = "network policy %s allows nothing: %s"
			all = append(all, fmt.Sprintf(format, p.Key(), why))
		}
	}
	return all
}
