package plan

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"

	"github.com/trivet-node/trivet/node/plan/backoff"
)

// View is a pod as one look sees it: what is wanted, what the node has, and what was decided. It does not
// change any more, so the status is computed from it and steps may keep it.
type View struct {
	Pod *v1.Pod

	// Observed is without what only steps in flight have brought about.
	Observed Observed

	// Sandbox is the newest one, ready or not; nil: none.
	Sandbox *Sandbox

	// Gone means that the API has no such pod any more, or has it again before it was taken down.
	Gone bool

	// What only Decide knows.
	Now time.Time

	// Health is what the probes found, by the ID of the instance.
	Health map[string]Health

	// Ending means that the pod must end: nothing is started any more.
	Ending bool

	// Ended is the agent's own reason for that; nil: it has none.
	Ended *Ending

	// Pending is why the pod does not have the resources that its specification asks for; nil: it does.
	Pending *Pending

	// Resizing is the grant that is not in force everywhere yet; nil: there is none.
	Resizing *Grant

	// instances are those of the runtime, by the name of the container, the newest first.
	instances map[string][]*Container

	// recalled are those that only the API knows to have run, by the name of the container.
	recalled map[string]*Container

	removed removed

	// starting means that a container's start is in flight.
	starting bool
	failures map[Key]backoff.Failure
	restarts map[string]backoff.Restarts
	limit    time.Duration

	// grant is the newest one, nil if the pod was never resized, and lagging are the instances that do not
	// have their part of it.
	grant   *Grant
	lagging []Size
}

// viewOf orders what was observed. What only Decide knows is not in it.
func viewOf(pod *v1.Pod, o Observed, gone removed) View {
	v := View{
		Pod:       pod,
		Observed:  o,
		instances: make(map[string][]*Container, len(o.Containers)),
		removed:   maps.Clone(gone),
	}

	for i := range o.Sandboxes {
		if s := &o.Sandboxes[i]; v.Sandbox == nil || newerSandbox(s, v.Sandbox) {
			v.Sandbox = s
		}
	}

	for i := range o.Containers {
		c := &o.Containers[i]
		if gone := v.removed[c.Name]; gone != nil && gone.ID != c.ID && newer(gone, c) {
			// It is removed after a newer one.
			continue
		}

		all := v.instances[c.Name]
		place := slices.IndexFunc(all, func(old *Container) bool { return newer(c, old) })
		if place < 0 {
			place = len(all)
		}

		v.instances[c.Name] = slices.Insert(all, place, c)
	}

	v.recall()
	return v
}

// newer reports whether an instance of a container came after another one: by its restart count, then its
// time.
func newer(a, b *Container) bool {
	return cmp.Or(
		cmp.Compare(a.Attempt, b.Attempt),
		a.Created.Compare(b.Created),
		cmp.Compare(a.ID, b.ID),
	) > 0
}

// newerSandbox reports whether a sandbox came after another one. After a reboot attempts begin at 0 again, so
// their time counts, too.
func newerSandbox(a, b *Sandbox) bool {
	return cmp.Or(
		cmp.Compare(a.Attempt, b.Attempt),
		a.Created.Compare(b.Created),
		cmp.Compare(a.ID, b.ID),
	) > 0
}

// keep adds what Decide knows to the view, as it is now.
func (v *View) keep(p *Pod, health map[string]Health, now time.Time) {
	v.Now = now
	v.Health = health
	v.Ended = p.ended
	v.Pending = p.pending
	v.grant = p.sizes.grant
	v.starting = p.startingContainer()
	v.failures = maps.Clone(p.steps.failures)
	v.restarts = maps.Clone(p.restarts)
	v.limit = p.limit
}

// Ready returns the newest sandbox of the pod if it is ready, else nil. Older ones do not count.
func (v *View) Ready() *Sandbox {
	if v.Sandbox != nil && v.Sandbox.Ready {
		return v.Sandbox
	}
	return nil
}

// IPs returns the addresses of the pod, primary first: those of its sandbox, or the node's for a pod on the
// node's network.
func (v *View) IPs(node []string) []string {
	if v.Pod.Spec.HostNetwork {
		return node
	}
	if s := v.Ready(); s != nil {
		return podIPs(s.IPs, node)
	}
	return nil
}

// podIPs returns the addresses that a status has of those of a sandbox: the first one of each family, the
// family of the node's first address first. The API refuses two of a family, and what a CNI plugin returns is
// in no order that counts: the primary address decides which family a pod is reached by. Without an address
// of the node IPv4 is first.
func podIPs(sandbox, node []string) []string {
	if len(sandbox) == 0 {
		return nil
	}

	var v4, v6 []string
	for _, text := range sandbox {
		ip, err := netip.ParseAddr(text)
		ip = ip.Unmap()
		switch {
		case err != nil, ip.Zone() != "":
		case ip.Is4() && v4 == nil:
			v4 = []string{ip.String()}
		case ip.Is6() && v6 == nil:
			v6 = []string{ip.String()}
		}
	}

	if len(node) > 0 && strings.Contains(node[0], ":") {
		return append(v6, v4...)
	}

	return append(v4, v6...)
}

// Instances returns the instances of a container that the runtime has, the newest first.
func (v *View) Instances(container string) []*Container { return v.instances[container] }

// Started returns the instances of a container that were started, the newest first. One that is only created
// may be one whose start is in flight.
func (v *View) Started(container string) []*Container {
	all := v.instances[container]
	for len(all) > 0 && all[0].State == Created {
		all = all[1:]
	}
	return all
}

// latest is the newest instance of a container that the runtime has or only the API knows, nil if there was
// none.
func (v *View) latest(container string) *Container {
	if all := v.instances[container]; len(all) > 0 {
		return all[0]
	}
	return v.recalled[container]
}

// current is the newest instance, if it belongs to the sandbox that counts. Instances of earlier sandboxes
// are history.
func (v *View) current(container string) *Container {
	if c := v.latest(container); c != nil && v.Sandbox != nil && c.SandboxID == v.Sandbox.ID {
		return c
	}
	return nil
}

// running returns how many instances run.
func (v *View) running() (count int) {
	for i := range v.Observed.Containers {
		if v.Observed.Containers[i].State == Running {
			count++
		}
	}
	return count
}

// Down reports whether no container of an ending pod runs or is about to. A mount or sandbox that is still on
// its way does not count: a server of volumes that does not answer must not keep a pod from having failed.
func (v *View) Down() bool { return v.Ending && !v.starting && v.running() == 0 }

// Failed returns the failure of a step of a container, Pull or Start, if it has failed and was not repeated
// since.
func (v *View) Failed(verb Verb, container string) (f backoff.Failure, failed bool) {
	f, failed = v.failures[Key{verb, container}]
	return f, failed
}

// Backoff returns how long the restart of an instance that ended is held back, and until when. The zero time
// means that it is not.
func (v *View) Backoff(c *Container) (delay time.Duration, until time.Time) {
	r := v.restarts[c.Name]
	return r.Delay, r.Until(c.Finished, v.Now, v.limit)
}

// applicationsBegun reports whether an application container was created in the current sandbox: then
// initialization is over.
func (v *View) applicationsBegun() bool {
	created := func(c v1.Container) bool { return v.current(c.Name) != nil }
	return slices.ContainsFunc(v.Pod.Spec.Containers, created)
}

// attempt is the restart count of the next instance: one more than that of the newest one that the runtime or
// the API knows. All instances may have been removed, as all containers of the pod are restarted.
func (v *View) attempt(name string) uint32 {
	next := v.Observed.Logged[name]
	if last := v.latest(name); last != nil {
		if last.State == Created {
			return last.Attempt
		}

		next = max(next, last.Attempt+1)
	}

	if removed := v.removed[name]; removed != nil {
		next = max(next, removed.Attempt+1)
	}

	for _, all := range [][]v1.ContainerStatus{
		v.Pod.Status.InitContainerStatuses,
		v.Pod.Status.ContainerStatuses,
	} {
		for i := range all {
			if s := &all[i]; s.Name == name && ran(s) != nil {
				next = max(next, uint32(s.RestartCount)+1)
			}
		}
	}

	return next
}
