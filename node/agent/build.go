package agent

import (
	"context"
	"os"
	"path/filepath"

	"k8s.io/apimachinery/pkg/types"

	"github.com/trivet-node/trivet/internal/kube"
	"github.com/trivet-node/trivet/internal/kube/event"
	"github.com/trivet-node/trivet/internal/kube/review"
	"github.com/trivet-node/trivet/internal/kube/storage"
	"github.com/trivet-node/trivet/internal/program"
	"github.com/trivet-node/trivet/node/allocation"
	"github.com/trivet-node/trivet/node/csiplugin"
	"github.com/trivet-node/trivet/node/csivolume"
	"github.com/trivet-node/trivet/node/growth"
	"github.com/trivet-node/trivet/node/imageaccess"
	"github.com/trivet-node/trivet/node/machine"
	"github.com/trivet-node/trivet/node/objects"
	"github.com/trivet-node/trivet/node/podcertificate"
	"github.com/trivet-node/trivet/node/podenv"
	"github.com/trivet-node/trivet/node/podlog"
	"github.com/trivet-node/trivet/node/podlog/logrotate"
	"github.com/trivet-node/trivet/node/podsource"
	"github.com/trivet-node/trivet/node/probe"
	"github.com/trivet-node/trivet/node/queue"
	"github.com/trivet-node/trivet/node/userns"
	"github.com/trivet-node/trivet/node/volume"
)

// runParts makes the parts and has them run, each after those that it is given: first what the cluster sees
// of the node, then the pods, and last the API, whose requests are about pods.
func (s *surroundings) runParts(parts *parts) error {
	if err := s.makeDirectories(); err != nil {
		return err
	}

	// The node in the cluster.
	events := s.newEvents()
	parts.runSafe("events", events.Run)
	status := s.runNode(parts, events)
	allocatable, err := status.Allocatable()
	if err != nil {
		return err
	}

	warnOfSwap(s, events)

	// Pods' groups are made below these.
	tree, err := s.newCgroups(parts.ctx, events)
	if err != nil {
		return err
	}

	// Which pods there are, and what they refer to. A change of either adds a look at the pod, and nothing
	// more.
	looks := queue.New()
	pods := podsource.New(kube.Pods(s.client), s.cfg.NodeName, looks, s.log)
	refs := objects.New(s.client, func(pod types.UID) { looks.Look(pod, queue.ObjectChanged) }, s.log)

	// A list that is tried before there is an API server is tried again half a minute after there is one.
	parts.runSafe("objects", after(status.Registered(), refs.Run))

	in := podInputs{
		status:  status,
		tree:    tree,
		pods:    pods,
		refs:    refs,
		events:  events,
		looks:   looks,
		env:     podenv.Node{Name: s.cfg.NodeName, IPs: s.ips, Allocatable: allocatable},
		storage: runStorageMeter(s, parts, pods, tree),
		results: probe.NewResults(pods.List),

		allocations: allocation.New(s.cfg.RootDir, s.log),
	}

	if in.csi, err = runCSI(s, parts, in); err != nil {
		return err
	}
	if in.users, err = newUsers(parts.ctx, s, in); err != nil {
		return err
	}

	// What a pod is made of beside its containers.
	volumes := s.runVolumes(parts, in)
	if err := s.runPods(parts, in, volumes); err != nil {
		return err
	}

	return s.runAPI(parts, in, volumes)
}

// makeDirectories makes those that more than one part uses.
func (s *surroundings) makeDirectories() error {
	for dir, mode := range map[string]os.FileMode{
		s.cfg.RootDir:   0o750,
		s.checkpoints(): 0o700,
		s.cfg.Logs.Dir:  0o750,
		s.logs().Links:  0o755,
	} {
		if err := os.MkdirAll(dir, mode); err != nil {
			return err
		}
	}
	return nil
}

// checkpoints is where the runtime writes the state of containers.
func (s *surroundings) checkpoints() string { return filepath.Join(s.cfg.RootDir, "checkpoints") }

// logs are where the logs of pods are, and beside them the links to those of containers, /var/log/containers.
func (s *surroundings) logs() podlog.Logs {
	root := filepath.Clean(s.cfg.Logs.Dir)
	return podlog.Logs{Root: root, Links: filepath.Join(filepath.Dir(root), "containers")}
}

func (s *surroundings) newEvents() *event.Recorder {
	return event.New(kube.Events(s.client), event.Config{
		Component: "kubelet",
		Node:      s.cfg.NodeName,
		PerSecond: s.cfg.Events.PerSecond,
		Burst:     s.cfg.Events.Burst,
		Log:       s.log,
	})
}

// runRotator starts what rotates the logs of containers.
func (s *surroundings) runRotator(parts *parts) error {
	rotator, err := logrotate.New(logrotate.Config{
		Runtime:  s.runtime,
		Log:      s.log,
		MaxSize:  s.cfg.Logs.MaxSize,
		MaxFiles: s.cfg.Logs.MaxFiles,
		Workers:  s.cfg.Logs.Workers,
		Every:    s.cfg.Logs.Interval,
	})
	if err != nil {
		return err
	}

	parts.run("log rotation", rotator.Run)
	return nil
}

func (s *surroundings) newImageAccess() (*imageaccess.Access, error) {
	return imageaccess.Open(imageaccess.Config{
		RootDir:   s.cfg.RootDir,
		Policy:    s.cfg.Images.Verification,
		Allowlist: s.cfg.Images.Allowlist,
		Log:       s.log,
	})
}

// runCSI makes what has CSI drivers mount volumes, and starts their registration.
func runCSI(s *surroundings, parts *parts, in podInputs) (*csivolume.Mounter, error) {
	csiNode := &csiplugin.CSINodes{
		CSINodes: storage.CSINodes(s.client),
		Nodes:    kube.Nodes(s.client),
		Node:     s.cfg.NodeName,
	}

	// A driver that registers, or leaves, is a reason to look at every pod: each may have a volume of it. So
	// may the node, of pods that are gone. The first one registers when all is made.
	var volumes *csivolume.Mounter
	drivers := csiplugin.New(csiplugin.Config{
		Dir:       filepath.Join(s.cfg.RootDir, "plugins_registry"),
		Publisher: csiNode,
		Options:   s.traces.ClientOptions(),
		Called:    s.metrics.Volumes.Called,
		Log:       s.log,
		Changed: func() {
			for _, pod := range in.pods.List() {
				in.looks.Look(pod.UID, queue.DriverChanged)
			}
			volumes.DriversChanged()
		},
	})

	// CSI drivers may ask for tokens of the pod, as projected volumes do.
	volumes, err := csivolume.New(csivolume.Config{
		Root:    s.cfg.RootDir,
		Node:    s.cfg.NodeName,
		Nodes:   kube.Nodes(s.client),
		Objects: in.refs,
		Drivers: drivers,
		Tokens:  review.TokensOf(s.client),
		InUse:   &s.inUse,
		Claims:  growth.Status{Claims: kube.Claims(s.client)},
		Log:     s.log,
	})
	if err != nil {
		return nil, err
	}

	parts.run("csi drivers", drivers.Run)
	parts.run("csi node", csiNode.Init)
	parts.runSafe("csi unstaging", volumes.Run)
	return volumes, nil
}

// runVolumes makes what mounts volumes, and starts what has certificates issued for them.
func (s *surroundings) runVolumes(parts *parts, in podInputs) *volume.Mounter {
	cfg := volume.Config{
		Root:    s.cfg.RootDir,
		Node:    in.env,
		Objects: in.refs,
		Tokens:  review.TokensOf(s.client),
		CSI:     in.csi,
		Claims:  growth.Status{Claims: kube.Claims(s.client)},
		Mounted: s.metrics.Volumes.Mounted,
		Log:     s.log,
	}

	if s.cfg.Gates.PodCertificates {
		certificates := podcertificate.New(podcertificate.Config{
			API:     podcertificate.Of(s.client, s.cfg.NodeName, s.log),
			Node:    in.status.Node,
			Events:  in.events,
			Changed: func(pod types.UID) { in.looks.Look(pod, queue.ObjectChanged) },
			Log:     s.log,
		})
		s.metrics.Certificates.Pods = certificates.States
		parts.runSafe("pod certificates", certificates.Run)
		cfg.Certificates = certificates
	}

	return volume.New(cfg)
}

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
