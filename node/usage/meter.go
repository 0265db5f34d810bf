package usage

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/trivet-node/trivet/node/machine"
	"github.com/trivet-node/trivet/node/runtime"
)

// MaxAge is how old a snapshot may be that is given to another one who asks.
const MaxAge = 5 * time.Second

// passTime bounds how long the runtime may take for its lists.
const passTime = 10 * time.Second

// Runtime tells what runs (runtime.Client).
type Runtime interface {
	Containers(ctx context.Context, which runtime.Selection) ([]runtime.Container, error)
	Sandboxes(ctx context.Context, which runtime.Selection) ([]runtime.Sandbox, error)
}

// Tree names the groups of pods (podcgroup.Tree).
type Tree interface {
	// Tiers returns the groups above those of pods, the one of all pods first.
	Tiers() []string
	// Groups returns the group of each pod that has one.
	Groups() (map[types.UID]string, error)
}

// Config is what a Meter needs.
type Config struct {
	Groups  Groups
	V2      bool // whether the hierarchy is the unified one
	Tree    Tree
	Runtime Runtime
	// Daemons returns the group of each of the node's daemons, by kubelet's name of the system container. A
	// daemon whose group is not known is not in it.
	Daemons func() map[string]string
	// Root holds /proc and /sys; empty: this machine's.
	Root string
}

// Meter makes snapshots. Its methods may be called at the same time.
type Meter struct {
	cfg Config

	// passing is held by the pass that is under way, and guards finder and kept.
	passing sync.Mutex
	finder  finder
	kept    map[string]*kept

	// mu guards what follows.
	mu sync.Mutex
	// last is the newest snapshot of each depth, running the pass that is under way.
	last    [Everything + 1]*Snapshot
	running [Everything + 1]*pass
	rates   rates
}

// pass is one that is under way. result may be read when done is closed.
type pass struct {
	done   chan struct{}
	result *Snapshot
}

// New returns a Meter. It reads nothing yet.
func New(cfg Config) *Meter {
	return &Meter{
		cfg:    cfg,
		finder: finder{groups: cfg.Groups, tree: cfg.Tree},
	}
}

// Take returns a snapshot of this depth, or of a greater one, that is not older than MaxAge. Those who ask at
// the same time share one pass. The error is that of ctx.
func (m *Meter) Take(ctx context.Context, depth Depth) (*Snapshot, error) {
	p, known := m.join(depth)
	if known != nil {
		return known, nil
	}
	select {
	case <-p.done:
		return p.result, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// join returns a snapshot that is young enough, or else the pass that makes one. It is not ended by the one
// who asked first: others may wait for it.
func (m *Meter) join(depth Depth) (*pass, *Snapshot) {
	m.mu.Lock()
	defer m.mu.Unlock()

	for d := depth; d <= Everything; d++ {
		if s := m.last[d]; s != nil && time.Since(s.Time) < MaxAge {
			return nil, s
		}
	}

	for d := depth; d <= Everything; d++ {
		if p := m.running[d]; p != nil {
			return p, nil
		}
	}

	p := &pass{done: make(chan struct{})}
	m.running[depth] = p
	go m.run(p, depth)
	return p, nil
}

func (m *Meter) run(p *pass, depth Depth) {
	ctx, cancel := context.WithTimeout(context.Background(), passTime)
	defer cancel()

	m.passing.Lock()
	s := m.read(ctx, depth)
	m.passing.Unlock()

	m.mu.Lock()
	defer m.mu.Unlock()

	m.rates.add(s)
	p.result = s
	m.running[depth] = nil

	// What failed is tried again by the next one who asks.
	if s.Err == nil {
		m.last[depth] = s
	}

	close(p.done)
}

// read makes a pass.
func (m *Meter) read(ctx context.Context, depth Depth) *Snapshot {
	r := &reader{
		groups:   m.cfg.Groups,
		v2:       m.cfg.V2,
		machine:  machine.Machine{Root: m.cfg.Root},
		networks: map[string][]Interface{},
		kept:     m.kept,
		next:     map[string]*kept{},
	}
	defer func() { m.kept = r.end() }()

	s := &Snapshot{
		Depth:   depth,
		Boot:    r.boot(),
		Daemons: map[string]*Group{},
	}

	s.Pods, s.Err = m.pods(ctx)
	s.Node = r.group("/", depth, false)
	if depth == Everything {
		s.Interfaces = r.network("self")
	}

	for _, path := range m.cfg.Tree.Tiers() {
		if g := r.group(path, depth, false); g != nil {
			s.Tiers = append(s.Tiers, g)
		}
	}

	for name, path := range m.cfg.Daemons() {
		if g := r.group(path, depth, true); g != nil {
			s.Daemons[name] = g
		}
	}

	m.finder.look(s.Pods)
	for i := range s.Pods {
		m.readPod(r, &s.Pods[i], depth)
	}

	s.nameDevices(m.cfg.Root)
	s.Time = time.Now()
	return s
}

func (m *Meter) readPod(r *reader, p *Pod, depth Depth) {
	if path := m.finder.pods[types.UID(p.UID)]; path != "" {
		p.Group = r.group(path, depth, false)
	}

	p.Sandbox = m.readPart(r, p, p.SandboxID, depth)
	for i := range p.Containers {
		p.Containers[i].Group = m.readPart(r, p, p.Containers[i].ID, depth)
	}
}

// readPart reads the group of a container or sandbox of a pod, whose network is that of any process of it.
func (m *Meter) readPart(r *reader, p *Pod, id string, depth Depth) *Group {
	path := m.finder.byID[id]
	if path == "" {
		return nil
	}

	g := r.group(path, depth, true)
	if g == nil || g.Processes == nil {
		return g
	}
	if first := g.Processes.First; first != 0 && p.Interfaces == nil {
		p.Interfaces = r.network(strconv.Itoa(first))
	}

	return g
}

// pods asks the runtime for the pods that have a ready sandbox, each with the containers that run in it.
func (m *Meter) pods(ctx context.Context) ([]Pod, error) {
	sandboxes, err := m.cfg.Runtime.Sandboxes(ctx, runtime.Selection{Running: true})
	if err != nil {
		return nil, fmt.Errorf("sandboxes of the container runtime: %w", err)
	}

	containers, err := m.cfg.Runtime.Containers(ctx, runtime.Selection{Running: true})
	if err != nil {
		return nil, fmt.Errorf("containers of the container runtime: %w", err)
	}

	return join(sandboxes, containers), nil
}

// join puts containers to the newest sandbox of their pod.
func join(sandboxes []runtime.Sandbox, containers []runtime.Container) []Pod {
	bySandbox := map[string][]Container{}
	for _, c := range containers {
		bySandbox[c.SandboxID] = append(bySandbox[c.SandboxID], Container{
			ID:      c.ID,
			Name:    c.Name,
			Image:   c.Image,
			Created: c.Created,
		})
	}

	byPod := map[runtime.Pod][]runtime.Sandbox{}
	for _, s := range sandboxes {
		if s.Pod.UID == "" {
			// It was not made for Kubernetes.
			continue
		}

		byPod[s.Pod] = append(byPod[s.Pod], s)
	}

	out := make([]Pod, 0, len(byPod))
	for id, all := range byPod {
		newest := runtime.NewestSandbox(all)
		running := bySandbox[newest.ID]
		slices.SortFunc(running, func(a, b Container) int { return cmp.Compare(a.Name, b.Name) })
		out = append(out, Pod{
			Pod:        id,
			SandboxID:  newest.ID,
			Created:    newest.Created,
			Containers: running,
		})
	}

	slices.SortFunc(out, func(a, b Pod) int {
		return cmp.Or(
			cmp.Compare(a.Namespace, b.Namespace),
			cmp.Compare(a.Name, b.Name),
			cmp.Compare(a.UID, b.UID),
		)
	})

	return out
}
