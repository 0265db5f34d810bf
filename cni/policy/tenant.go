package policy

import (
	"cmp"
	"maps"
	"math"
	"net/netip"
	"slices"
)

// What the policies of a namespace may need on a node. Each namespace is compiled for itself, so that what
// one has costs no other one anything.
const (
	// maxCombinations is how many pairs of a peer and a port the rules of a policy may have in a direction.
	maxCombinations = 20_000
	// maxEffort is how much may be looked at to find the peers of a namespace's policies, and how much again
	// to grant what they allow.
	maxEffort = 2_000_000
	// maxNodeEffort is that of all namespaces together: some seconds.
	maxNodeEffort = 10 * maxEffort
	// maxParts is how many ranges of addresses the blocks of a namespace may have.
	maxParts = 50_000
	// maxElements is how many elements a namespace may have in the kernel, some 50 MB.
	maxElements = 200_000
	// maxNodeElements is how many all namespaces may have: they have to fit one transaction.
	maxNodeElements = 600_000
)

const (
	tooMuch     = "the policies of its namespace need too much"
	tooMuchHere = "the policies of this node need too much, and its namespace more than an equal part"
	tooMany     = "the policies of its namespace lead to too many addresses"
	tooManyHere = "the policies of this node lead to too many addresses, and those of its namespace to most"
)

// tenant is a namespace with policies that select pods of this node.
type tenant struct {
	*work
	namespace string
	policies  []*Policy
	profiles  []*profile
	*rim

	// quota is the effort that it may have, once for each of the two steps, and spent counts it. isShort says
	// that it would have needed more.
	quota   int
	spent   int
	isShort bool
	// parts counts those of blocks.
	parts int

	// elements counts what the profiles have in the kernel; ports are the different ones among that.
	elements int
	ports    map[Ports]bool
}

// tenants returns the namespaces of profiles, in order.
func (w *work) tenants(profiles []*profile) (all []*tenant) {
	byName := map[string]*tenant{}
	for _, p := range w.policies {
		if !w.used[Ingress][p] && !w.used[Egress][p] {
			continue
		}
		t := byName[p.Namespace]
		if t == nil {
			t = &tenant{work: w, namespace: p.Namespace}
			byName[p.Namespace] = t
			all = append(all, t)
		}
		t.policies = append(t.policies, p)
	}

	// A pod of which nothing is known is granted nothing.
	for _, p := range profiles {
		if !p.pods[0].Unknown {
			t := byName[p.pods[0].Namespace]
			t.profiles = append(t.profiles, p)
		}
	}
	return all
}

// compileAll grants what the policies of the namespaces allow. Each may have an equal part of the effort, and
// what some leave is for those that need more, so that nobody has less because of what others need.
func (w *work) compileAll(all []*tenant) {
	before := maps.Clone(w.refused)
	budget := maxNodeEffort
	for left, last := all, 0; len(left) > 0; {
		// Half of it for each of the two steps. It grows much each time, so that there are few rounds.
		quota := min(maxEffort, budget/len(left)/2)
		if quota < 2*last && quota < maxEffort {
			return
		}

		var short []*tenant
		for _, t := range left {
			t.restore(before)
			effort := t.compile(quota)
			if t.isShort && quota < maxEffort {
				short = append(short, t)
			} else {
				budget -= effort
			}
			// What does not fit is not kept until all are compiled.
			fit(all)
		}
		left, last = short, quota
	}
}

// shareOf returns how much each may have of a total so that nobody has less because of what others need.
func shareOf(needs []int, total int) (share int) {
	slices.Sort(needs)
	for i, need := range needs {
		if share = total / (len(needs) - i); need > share {
			return share
		}
		total -= need
	}
	return math.MaxInt
}

// restore makes the namespace's policies refused that were so before it was compiled, and no others.
func (t *tenant) restore(before map[*Policy]string) {
	for _, p := range t.policies {
		if before[p] == "" {
			delete(t.refused, p)
		}
	}
}

// compile grants what the policies of the namespace allow, and returns the effort.
func (t *tenant) compile(quota int) (effort int) {
	t.quota, t.spent, t.isShort, t.parts, t.elements = quota, 0, false, 0, 0
	t.rim, t.ports = newRim(), map[Ports]bool{}
	t.findPeers()
	effort = t.spent
	t.spent = 0
	if !t.locate() || !t.grantAll() {
		t.refuseAll(tooMuchFor(t.quota))
	}
	t.rim, t.ports = nil, nil
	return effort + t.spent
}

// tooMuchFor is why a policy is refused whose namespace may have an effort, and needs more.
func tooMuchFor(quota int) string {
	if quota < maxEffort {
		return tooMuchHere
	}
	return tooMuch
}

// afford counts an effort, and reports whether the namespace may have it.
func (t *tenant) afford(effort int) bool {
	if t.spent+effort > t.quota {
		t.isShort = true
		return false
	}
	t.spent += effort
	return true
}

// affordFor is afford for a policy, which is refused when its namespace may not.
func (t *tenant) affordFor(p *Policy, effort int) bool {
	if t.refused[p] != "" {
		return false
	}
	if !t.afford(effort) {
		t.refuse(p, tooMuchFor(t.quota))
		return false
	}
	return true
}

// refuseAll leaves out the rules of all policies of the namespace.
func (t *tenant) refuseAll(why string) {
	for _, p := range t.policies {
		t.refuse(p, why)
	}
	for _, p := range t.profiles {
		p.granted = nil
	}
	t.elements = 0
}

// elementsOfPorts are what a combination of ports is worth beside its ranges: it takes a set, chains and
// rules, all of which the kernel answers, and it looks for a set among all others.
const elementsOfPorts = 100

// count counts the elements of a profile, and reports whether the namespace may have them.
func (t *tenant) count(p *Profile) bool {
	// An interval has an element for its end, too.
	t.elements += len(p.Peers) + 2*len(p.Blocks)

	t.countPorts(p.Any)
	for _, ports := range p.Peers {
		t.countPorts(ports)
	}
	for _, i := range p.Blocks {
		t.countPorts(i.Ports)
	}
	return t.elements <= maxElements
}

func (t *tenant) countPorts(p Ports) {
	if p != "" && p != AllTraffic && !t.ports[p] {
		t.ports[p] = true
		t.elements += elementsOfPorts + len(p)/spanSize
	}
}

// fit refuses the policies of the namespaces that have most elements, until one transaction can hold the
// rest. It may be called for more and more of them: the outcome is that for all.
func fit(all []*tenant) {
	for {
		elements := 0
		for _, t := range all {
			elements += t.elements
		}
		if elements <= maxNodeElements {
			return
		}
		most := slices.MaxFunc(all, func(a, b *tenant) int { return cmp.Compare(a.elements, b.elements) })
		most.refuseAll(tooManyHere)
	}
}

// empty is what a profile has whose policies allow nothing.
func empty(d Direction) *Profile {
	return &Profile{Direction: d, Peers: map[netip.Addr]Ports{}}
}
