package agent

import (
	"context"
	"path/filepath"
	goruntime "runtime"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/trivet-node/trivet/internal/cgroup"
	"github.com/trivet-node/trivet/internal/kube"
	"github.com/trivet-node/trivet/internal/kube/event"
	"github.com/trivet-node/trivet/node/admit"
	"github.com/trivet-node/trivet/node/allocation"
	"github.com/trivet-node/trivet/node/criconfig"
	"github.com/trivet-node/trivet/node/csivolume"
	"github.com/trivet-node/trivet/node/health"
	"github.com/trivet-node/trivet/node/imageaccess"
	"github.com/trivet-node/trivet/node/imagegc"
	"github.com/trivet-node/trivet/node/imagepull"
	"github.com/trivet-node/trivet/node/kubeletmetric"
	"github.com/trivet-node/trivet/node/localstorage"
	"github.com/trivet-node/trivet/node/mirror"
	"github.com/trivet-node/trivet/node/nodestatus"
	"github.com/trivet-node/trivet/node/objects"
	"github.com/trivet-node/trivet/node/podcgroup"
	"github.com/trivet-node/trivet/node/podenv"
	"github.com/trivet-node/trivet/node/podsource"
	"github.com/trivet-node/trivet/node/podworker"
	"github.com/trivet-node/trivet/node/probe"
	"github.com/trivet-node/trivet/node/queue"
	"github.com/trivet-node/trivet/node/resize"
	"github.com/trivet-node/trivet/node/runtime"
	"github.com/trivet-node/trivet/node/userns"
	"github.com/trivet-node/trivet/node/volume"
)

// podInputs are the parts that those that run pods work with.
type podInputs struct {
	status  *nodestatus.Reporter
	tree    *podcgroup.Tree
	pods    *podsource.Source
	refs    *objects.Cache
	events  *event.Recorder
	looks   *queue.Queue
	env     podenv.Node
	storage *localstorage.Meter
	results *probe.Results
	csi     *csivolume.Mounter
	users   *userns.Ranges

	allocations *allocation.Ledger
}

// runPods makes and starts what pods are made of, what works on them, and what removes their leftovers.
func (s *surroundings) runPods(parts *parts, in podInputs, volumes *volume.Mounter) error {
	if err := s.runRotator(parts); err != nil {
		return err
	}

	// Who may use which image, from what earlier pulls have shown.
	access, err := s.newImageAccess()
	if err != nil {
		return err
	}

	// Disk space is got back by these, periodically and when it is needed.
	ended := newContainerGC(s, in)
	images := newImageGC(s, in)
	parts.runSafe("image garbage collection", images.Run)

	worker, err := s.newWorker(in, volumes, access, images)
	if err != nil {
		return err
	}

	// What brings pods in comes first. Static pods in files must be known before pods are worked on: what
	// runs and is not known is ended.
	s.runSources(parts, in)
	parts.run("container runtime", func(ctx context.Context) error { return s.runtime.Watch(ctx, worker) })
	parts.runSafe("pod workers", worker.Run)
	runHealth(s, parts, in)
	parts.runSafe("signs of life", func(ctx context.Context) {
		s.supervisor.Watch(ctx, s.log, in.looks.Turn)
	})
	runStorageLimits(s, parts, in, worker)

	// What nobody needs goes before a pod does.
	unneeded := reclaimers{containers: ended.ReclaimContainers, images: images.ReclaimImages}
	if err := runEviction(s, parts, in, worker, unneeded); err != nil {
		return err
	}

	// What is left of pods that are gone is removed once all pods are known.
	sweep := leftovers{
		log:     s.log,
		runtime: s.runtime,
		ended:   ended,
		pods:    in.pods,
		worker:  worker,
		volumes: volumes,
		users:   in.users,
		logs:    s.logs(),
		access:  access,
		tree:    in.tree,
		bound:   s.bounder(in.tree, in.events),
		looks:   in.looks,
	}

	parts.runSafe("leftovers", sweep.run)
	return nil
}

// runHealth has /healthz tell when pods are not worked on any more, or the node is not looked at.
func runHealth(s *surroundings, parts *parts, in podInputs) {
	workers := &health.Pulse{}
	s.health.Add("syncloop", workers.Check)
	s.health.Add("nodestatus", in.status.Pulse.Check)
	parts.runSafe("pulse of pod workers", func(ctx context.Context) { workers.Follow(ctx, in.looks.Turn) })
}

// newWorker makes the pod worker.
func (s *surroundings) newWorker(
	p podInputs, volumes *volume.Mounter, access *imageaccess.Access, kept *imagegc.Collector,
) (*podworker.Worker, error) {
	// The group of all pods is the first of the tiers.
	node, err := s.containerConfig(p.tree.Tiers()[0])
	if err != nil {
		return nil, err
	}

	node.Memory.Allocatable = p.env.Allocatable.Memory().Value()

	files := hostFiles{resolver: s.cfg.Containers.ResolverConfig, root: s.cfg.RootDir}
	if err := files.check(); err != nil {
		return nil, err
	}

	// More starts than workers may go on at once: most of a start is waiting for the runtime.
	cfg := podworker.Config{
		Node:        node,
		Env:         p.env,
		HostIPs:     s.ips,
		RuntimeName: s.info.Name,
		RootDir:     s.cfg.RootDir,
		Logs:        s.logs(),
		HostsFile:   "/etc/hosts",
		MaxBackoff:  s.cfg.Containers.MaxBackoff,
		KeepOld:     oldInstances(s.cfg.Containers.Ended.PerContainer),
		HostDNS:     files.dns,
		Workers:     2 * goruntime.NumCPU(),
		Starts:      4 * goruntime.NumCPU(),
		Handlers:    handlersOf(s, p.status),
		Admit:       s.admission(p.status, p.env.Allocatable),
		Refresh:     p.status.Refresh,
		ResizePods:  s.cfg.Gates.ResizePods,
	}

	tree := newBalancedTree(p, s.metrics.Pods.Cgroup)
	writer := mirror.Writer{Pods: kube.Pods(s.client), Source: p.pods, Node: p.status.Node}
	return podworker.New(cfg, podworker.Deps{
		Queue:   p.looks,
		Pods:    p.pods,
		API:     podAPI{Writer: writer, classes: p.refs},
		Runtime: s.runtime,
		Volumes: volumes,
		Cgroups: tree,
		Users:   p.users,
		Resizer: newResizer(s, node, tree),
		Objects: p.refs,
		Probes:  probe.New(s.runtime, p.looks, p.events, p.results),
		Events:  p.events,
		Images:  newPuller(s, p, files, node, access, kept),
		Meter:   s.metrics.Pods,
		Traces:  s.traces,
		Log:     s.log,

		Allocations: p.allocations,
		ResizeMeter: s.metrics.Resizes,
	}), nil
}

// newResizer makes what changes the resources of pods that run.
func newResizer(s *surroundings, node criconfig.Node, tree balancedTree) *resize.Resizer {
	return resize.New(resize.Config{
		Node:    node,
		Cgroups: tree,
		Runtime: s.runtime,
		Took:    s.metrics.Resizes.Took,
	})
}

// newPuller makes what pulls the images of pods.
func newPuller(
	s *surroundings,
	p podInputs,
	files hostFiles,
	node criconfig.Node,
	access *imageaccess.Access,
	kept *imagegc.Collector,
) *imagepull.Puller {
	// PullImage of CRI takes the configuration of the sandbox that the image is for.
	return imagepull.New(imagepull.Config{
		Runtime:     s.runtime,
		Secrets:     p.refs,
		Access:      access,
		Keeper:      kept,
		Events:      p.events,
		Log:         s.log,
		NodeSecrets: files.pullSecrets,
		Sandbox: func(pod *v1.Pod) (*runtime.SandboxConfig, error) {
			return criconfig.Sandbox(node, pod, 0, p.tree.Parent(pod))
		},
		Parallel: s.cfg.Images.ParallelPulls,
		Pulled:   s.metrics.Images.Pulled,
	})
}

// podAPI is what the pod worker needs of the API server.
type podAPI struct {
	mirror.Writer
	classes *objects.Cache
}

// Handler returns the runtime handler of a RuntimeClass.
func (a podAPI) Handler(ctx context.Context, class string) (string, error) {
	found, err := a.classes.RuntimeClass(ctx, class)
	if err != nil {
		return "", err
	}
	return found.Handler, nil
}

// containerConfig is what the configuration of every container depends on. pods is the group of all pods.
func (s *surroundings) containerConfig(pods string) (criconfig.Node, error) {
	memory, err := s.machine.Memory()
	if err != nil {
		return criconfig.Node{}, err
	}

	var pages []string
	if s.cgroups.Controller("hugetlb") {
		if pages, err = cgroup.PageSizes(); err != nil {
			return criconfig.Node{}, err
		}
	}

	limitedSwap := s.cfg.Containers.LimitedSwap
	return criconfig.Node{
		ClusterDNS:     s.cfg.Containers.ClusterDNS,
		ClusterDomain:  s.cfg.Containers.ClusterDomain,
		LogRoot:        s.cfg.Logs.Dir,
		SeccompRoot:    filepath.Join(s.cfg.RootDir, "seccomp"),
		SeccompDefault: s.cfg.Containers.SeccompDefault,
		MemoryCapacity: memory.Total,
		CgroupV2:       s.cgroups.V2,
		SingleOOMKill:  s.cfg.Containers.SingleOOMKill,
		Swap:           swapPolicy(memory, s.cgroups.BoundsSwap(pods), limitedSwap, s.cgroups.V2),
		PageSizes:      pages,
		CPUQuota:       s.cfg.Cgroups.CPUQuota,
		Memory:         s.cfg.Cgroups.Memory,
	}, nil
}

// handlersOf returns the container runtime's handlers as the Node's status shows them; before there is a
// Node, those that the runtime had when the agent started.
func handlersOf(s *surroundings, status *nodestatus.Reporter) func() []v1.NodeRuntimeHandler {
	return func() []v1.NodeRuntimeHandler {
		if node := status.Node(); node != nil {
			return node.Status.RuntimeHandlers
		}
		return s.info.Handlers
	}
}

// admission decides about pods that are new on the node, by what the node is at that time.
func (s *surroundings) admission(
	status *nodestatus.Reporter, allocatable v1.ResourceList,
) func(pod *v1.Pod, others []*v1.Pod) admit.Verdict {
	fixed := admit.Node{
		Allocatable:    allocatable,
		Features:       declaredFeatures(s.cfg.Gates),
		AllowedSysctls: s.cfg.Containers.AllowedSysctls,
		AppArmor:       s.machine.AppArmor(),
		StrictGroups:   s.info.SupplementalGroupsPolicy(),
		PodResources:   s.cfg.Gates.PodResources,
	}

	return func(pod *v1.Pod, others []*v1.Pod) admit.Verdict {
		node := fixed
		node.Object, node.Pressure = status.Known(), s.pressures.Now()
		return admit.Check(node, pod, others)
	}
}

// runSources starts what brings pods in: the files, the page and the API server.
func (s *surroundings) runSources(parts *parts, in podInputs) {
	static := s.cfg.Static
	if static.Path != "" {
		files := podsource.NewFiles(in.pods, static.Path)
		parts.run("static pods", files.Run)
	}

	if static.URL != "" {
		page := podsource.NewPage(in.pods, static.URL, static.URLHeader, static.Interval)
		parts.runSafe("static pods by HTTP", page.Run)
	}

	parts.runSafe("pods", after(in.status.Registered(), in.pods.Run))
}

// runStorageMeter makes what measures the local storage that pods take.
func runStorageMeter(
	s *surroundings, parts *parts, pods *podsource.Source, tree *podcgroup.Tree,
) *localstorage.Meter {
	meter := localstorage.New(localstorage.Config{
		Root:    s.cfg.RootDir,
		Logs:    s.logs(),
		Pods:    pods.List,
		Runtime: s.runtime,
		Groups:  tree,
		Log:     s.log,
	})
	parts.runSafe("local storage", meter.Run)
	return meter
}

// runStorageLimits evicts the pods that exceed their limits of local storage, unless the configuration says
// that nobody does.
func runStorageLimits(s *surroundings, parts *parts, in podInputs, worker *podworker.Worker) {
	if !s.cfg.Resources.LocalStorage {
		return
	}

	enforcer := localstorage.NewEnforcer(localstorage.EnforcerConfig{
		Meter:   in.storage,
		Pods:    in.pods.List,
		Evictor: storageEvictor{worker: worker, metrics: s.metrics.Pods},
		Log:     s.log,
		DedicatedImageFS: func(ctx context.Context) (bool, error) {
			images, err := s.runtime.ImageDir(ctx)
			if err != nil {
				return false, err
			}

			return localstorage.Apart(images, s.cfg.RootDir)
		},
	})

	parts.runSafe("limits of local storage", enforcer.Run)
}

// storageEvictor evicts pods for their use of local storage, in kubelet's way.
type storageEvictor struct {
	worker  *podworker.Worker
	metrics *kubeletmetric.Pods
}

// Evict ends a pod at once: it has a second.
func (e storageEvictor) Evict(uid types.UID, excess localstorage.Excess) bool {
	evicted := e.worker.Evict(uid, podworker.Eviction{
		Reason:  "Evicted",
		Message: excess.Message,
		Grace:   time.Second,
	})
	if evicted {
		e.metrics.Evicted(excess.Signal)
	}

	return evicted
}
