// Package enforcer keeps the network policies of the cluster in force on a node: it compares what the API and
// the plugin's records say with what it has written into the kernel, and writes the difference.
//
// Like the rest of trivet-netd it is level-triggered: whatever happens leads to the same pass.
package enforcer

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/trivet-node/trivet/cni/ipam"
	"github.com/trivet-node/trivet/cni/netd/policies"
	"github.com/trivet-node/trivet/cni/policy"
	"github.com/trivet-node/trivet/cni/policy/filter"
	"github.com/trivet-node/trivet/cni/policy/hold"
	"github.com/trivet-node/trivet/cni/rtnl"
	"github.com/trivet-node/trivet/internal/bootid"
	"github.com/trivet-node/trivet/internal/kube"
	"github.com/trivet-node/trivet/internal/retry"
)

// Config says for which node and network.
type Config struct {
	NodeName string
	Network  string
	Bridge   string
	Pool     ipam.Location
	// Passed is told about each pass. It may be nil.
	Passed func(Report)
}

// Report is what a pass found.
type Report struct {
	Took time.Duration
	// Compiled is how much of it was work, not waiting for the kernel.
	Compiled time.Duration
	// Changed says that the pass has changed something in the kernel.
	Changed bool
	// Policies counts those of the cluster, Isolated the pods of this node that some of them select.
	Policies int
	Isolated int
	// Err is why policies are not in force as they are; it is tried again soon.
	Err error
	// Problems name policies that allow nothing, and why.
	Problems []string
	// Lacks says what the kernel lacks, "" for nothing.
	Lacks string
}

// Between two passes are at least minPause and pauseShare times what the last one has worked, up to maxPause.
// The kernel makes a transaction that deletes something wait for some 10 ms, which is no work.
const (
	minPause   = 5 * time.Millisecond
	maxPause   = time.Second
	pauseShare = 4
)

const (
	recheck    = time.Minute
	firstRetry = 200 * time.Millisecond
	lastRetry  = 30 * time.Second
)

// Enforcer keeps policies in force.
type Enforcer struct {
	cfg      Config
	log      *slog.Logger
	source   *policies.Source
	compiler *policy.Compiler
	filter   *filter.Filter
	changed  func()

	// wake holds one request for a pass.
	wake    chan struct{}
	backoff retry.Backoff
	// cleared is when connections of ended pods were forgotten last.
	cleared time.Time
	// others are the ports of pods that are not on record.
	others []string

	// mu guards the rest.
	mu      sync.Mutex
	report  Report
	subnets []netip.Prefix
	// forgotten says that somebody else has changed the tables, doubtful that this may be so, and doubted
	// when that was the reason last to write them.
	forgotten bool
	doubtful  bool
	doubted   time.Time
}

// New returns an enforcer. changed is called when what Report returns says something else than before.
func New(client *kube.Client, cfg Config, changed func(), log *slog.Logger) *Enforcer {
	e := &Enforcer{
		cfg:      cfg,
		log:      log,
		compiler: policy.NewCompiler(),
		filter:   filter.New(cfg.Network),
		changed:  changed,
		wake:     make(chan struct{}, 1),
		backoff:  retry.Backoff{First: firstRetry, Max: lastRetry},
		report:   Report{Err: policies.ErrNoListYet},
	}
	// Reservations of an earlier boot are left to the plugin.
	e.cfg.Pool.BootScoped = false
	e.source = policies.New(client, e.Wake)
	return e
}

// Wake asks for a pass and does not wait.
func (e *Enforcer) Wake() {
	select {
	case e.wake <- struct{}{}:
	default:
	}
}

// ErrNoSubnets is the state of a node whose pod CIDRs are not known yet: rules for frames that are in the
// kernel are not replaced by ones without them.
var ErrNoSubnets = errors.New("network policies: waiting for this node's pod CIDRs")

// SetSubnets says which addresses the pods of this node have. A Node that has none takes none from pods that
// run.
func (e *Enforcer) SetSubnets(subnets []netip.Prefix) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(subnets) == 0 || slices.Equal(e.subnets, subnets) {
		return
	}

	e.subnets = slices.Clone(subnets)
	if errors.Is(e.report.Err, ErrNoSubnets) {
		// What is wrong with these, if anything, is for the next pass to say.
		e.report.Err = policies.ErrNoListYet
	}
	e.Wake()
}

// Report returns what the last pass found.
func (e *Enforcer) Report() Report {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.report
}

// Run keeps policies in force until ctx ends. What is in the kernel then stays.
func (e *Enforcer) Run(ctx context.Context) error {
	host, err := rtnl.Open()
	if err != nil {
		return err
	}
	defer func() { _ = host.Close() }()

	boot, err := bootid.Read()
	if err != nil {
		return err
	}

	pool, err := e.cfg.Pool.Create()
	if err != nil {
		return err
	}

	network := hold.Network{Name: e.cfg.Network, Pool: pool}
	serving, err := network.Serve(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = serving.Close() }()

	var running sync.WaitGroup
	defer running.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()

	watchEnded := make(chan error, 3)
	running.Go(func() { watchEnded <- e.filter.Watch(ctx, e.forget, e.doubt) })
	running.Go(func() { watchEnded <- network.Watch(ctx, e.Wake) })
	running.Go(func() { watchEnded <- rtnl.Watch(ctx, e.Wake) })
	running.Go(func() { e.source.Run(ctx) })

	p := pass{
		Enforcer: e,
		host:     host,
		network:  network,
		boot:     boot,
	}
	for {
		next := time.NewTimer(p.make(ctx))
		pause := min(max(minPause, pauseShare*e.Report().Compiled), maxPause)
		if retry.Sleep(ctx, pause) != nil {
			return nil
		}

		select {
		case <-ctx.Done():
			return nil
		case err := <-watchEnded:
			return err
		case <-e.wake:
		case <-next.C:
		}

		next.Stop()
	}
}

// forget has the next pass write everything: something of the tables was deleted by somebody else.
func (e *Enforcer) forget() {
	e.mu.Lock()
	e.forgotten = true
	e.mu.Unlock()
	e.Wake()
}

// doubt has a pass soon write everything: messages about tables were lost, which others have in large
// numbers.
func (e *Enforcer) doubt() {
	e.mu.Lock()
	e.doubtful = true
	e.mu.Unlock()
	e.Wake()
}

// take returns what has changed for the next pass.
func (e *Enforcer) take() (subnets []netip.Prefix, forgotten bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.doubtful && time.Since(e.doubted) > recheck/2 {
		e.forgotten, e.doubtful = true, false
		e.doubted = time.Now()
	}
	forgotten, e.forgotten = e.forgotten, false
	return e.subnets, forgotten
}

// put keeps the report of a pass, and says so if it has news.
func (e *Enforcer) put(r Report) {
	e.mu.Lock()
	news := text(e.report.Err) != text(r.Err) || !slices.Equal(e.report.Problems, r.Problems) ||
		e.report.Lacks != r.Lacks
	e.report = r
	e.mu.Unlock()

	if news {
		e.changed()
	}
	if e.cfg.Passed != nil {
		e.cfg.Passed(r)
	}
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// Remove removes what an enforcer of a network has made: nothing is enforced, and no pod is held.
func Remove(network string, location ipam.Location) error {
	location.BootScoped = false
	err := filter.New(network).Remove()
	pool, openErr := location.Open()
	if openErr != nil || pool == nil {
		return errors.Join(err, openErr)
	}
	return errors.Join(err, hold.Network{Name: network, Pool: pool}.Forget())
}
