package agent

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	goruntime "runtime"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"

	"github.com/trivet-node/trivet/internal/program"
	"github.com/trivet-node/trivet/node/criconfig"
	"github.com/trivet-node/trivet/node/csiplugin"
	"github.com/trivet-node/trivet/node/csivolume"
	"github.com/trivet-node/trivet/node/event"
	"github.com/trivet-node/trivet/node/heartbeat"
	"github.com/trivet-node/trivet/node/imageaccess"
	"github.com/trivet-node/trivet/node/kubeapi"
	"github.com/trivet-node/trivet/node/kubeletconfig"
	"github.com/trivet-node/trivet/node/objects"
	"github.com/trivet-node/trivet/node/podenv"
	"github.com/trivet-node/trivet/node/podsource"
	"github.com/trivet-node/trivet/node/podworker"
	"github.com/trivet-node/trivet/node/probe"
	"github.com/trivet-node/trivet/node/volume"
)

// KubernetesVersion is the version of kubelet whose behaviour is served; tools compare it with the API
// server's.
const KubernetesVersion = "v1.37.2"

// connect finds the node's identity, or how to get it, and its addresses.
func (a *Agent) connect() error {
	rc, join, err := kubeapi.Connect(a.identity, a.log)
	if err != nil {
		return err
	}
	a.join = join
	rc.UserAgent = "trivet-node/" + program.Version
	if a.client, err = kubeapi.New(rc); err != nil {
		return err
	}
	a.ips, err = nodeIPs(a.cfg.NodeIPs, rc)
	return err
}

// nodeIPs are the configured addresses, or the one from which the API server is reached.
func nodeIPs(configured []net.IP, rc *rest.Config) ([]string, error) {
	var out []string
	for _, ip := range configured {
		if !ip.IsUnspecified() {
			out = append(out, ip.String())
		}
	}

	if len(out) > 0 {
		return out, nil
	}

	u, err := url.Parse(rc.Host)
	if err != nil || u.Host == "" {
		return nil, fmt.Errorf("address of the API server %q is not valid; set --node-ip", rc.Host)
	}

	port := u.Port()
	if port == "" {
		port = "443"
	}

	// sends nothing, only asks for the route
	conn, err := net.Dial("udp", net.JoinHostPort(u.Hostname(), port))
	if err != nil {
		return nil, fmt.Errorf("find the node's address: %w; set --node-ip", err)
	}
	defer conn.Close()

	local, _, err := net.SplitHostPort(conn.LocalAddr().String())
	return []string{local}, err
}

// build makes the parts, each with what it needs of the others.
func (a *Agent) build(ctx context.Context) error {
	a.events = event.New(event.API{Core: a.client.Core}, a.cfg.NodeName, a.log)
	a.events.Limit(int(*a.cfg.Kubelet.EventRecordQPS), int(a.cfg.Kubelet.EventBurst))
	reserved, err := a.cfg.Reserved()
	if err != nil {
		return err
	}

	for dir, mode := range map[string]os.FileMode{
		a.cfg.RootDir:            0o750,
		a.checkpoints():          0o700,
		a.cfg.Kubelet.PodLogsDir: 0o750,
		a.links():                0o755,
	} {
		if err := os.MkdirAll(dir, mode); err != nil {
			return err
		}
	}

	a.heart = heartbeat.New(
		a.heartConfig(reserved),
		a.client.Core,
		a.client.Coordination,
		a.runtime,
		a.events.Node,
		a.log,
	)

	allocatable, err := a.heart.Allocatable()
	if err != nil {
		return err
	}
	if err := a.makeCgroups(ctx); err != nil {
		return err
	}

	a.source = podsource.New(func(uid types.UID) { a.worker.Enqueue(uid) }, a.log)
	a.objects = objects.New(a.client, func(uid types.UID) { a.worker.ObjectChanged(uid) }, a.log)
	node := podenv.Node{Name: a.cfg.NodeName, IPs: a.ips, Allocatable: allocatable}
	if err := a.makeVolumes(node); err != nil {
		return err
	}

	a.probes = probe.New(a.runtime, func(uid types.UID) { a.worker.Enqueue(uid) }, func(
		pod *v1.Pod,
		container, reason, text string,
	) {
		a.events.Pod(pod, container, v1.EventTypeWarning, reason, text)
	})

	return a.makeWorker(node, allocatable)
}

// links is where the logs of containers are linked: beside those of pods, /var/log/containers.
func (a *Agent) links() string {
	return filepath.Join(filepath.Dir(filepath.Clean(a.cfg.Kubelet.PodLogsDir)), "containers")
}

func (a *Agent) makeVolumes(node podenv.Node) error {
	a.csiNode = &csiplugin.CSINodes{Client: a.client, Node: a.cfg.NodeName}
	a.drivers = csiplugin.New(csiplugin.Config{
		Dir:       filepath.Join(a.cfg.RootDir, "plugins_registry"),
		Publisher: a.csiNode,
		Log:       a.log,
		Changed: func() {
			for _, p := range a.source.List() {
				a.worker.ObjectChanged(p.UID)
			}
		},
	})

	tokens := volume.TokenIssuer{Client: a.client}
	csi, err := csivolume.New(csivolume.Config{
		Root:    a.cfg.RootDir,
		Node:    a.cfg.NodeName,
		Objects: a.objects,
		Drivers: a.drivers,
		Tokens:  tokens,
		Claims:  csivolume.ClaimStatus{Client: a.client},
	})
	if err != nil {
		return err
	}

	a.volumes = volume.New(volume.Config{
		Root:    a.cfg.RootDir,
		Node:    func() podenv.Node { return node },
		Objects: a.objects,
		Tokens:  tokens,
		CSI:     csi,
		Log:     a.log,
	})

	return nil
}

func (a *Agent) makeWorker(node podenv.Node, allocatable v1.ResourceList) error {
	k := &a.cfg.Kubelet
	memory, _, err := heartbeat.Memory()
	if err != nil {
		return err
	}

	if _, err := a.hostDNS(); err != nil {
		return err
	}

	if _, err := a.pullSecrets(); err != nil {
		return err
	}

	if a.access, err = a.imageAccess(); err != nil {
		return err
	}

	cfg := podworker.Config{
		Node:         a.containerConfig(memory),
		Env:          node,
		HostIPs:      a.ips,
		RuntimeName:  a.info.Name,
		RootDir:      a.cfg.RootDir,
		Links:        a.links(),
		HostsFile:    "/etc/hosts",
		MaxBackoff:   k.CrashLoopBackOff.MaxContainerRestartPeriod.Duration,
		HostDNS:      a.hostDNS,
		PullSecrets:  a.pullSecrets,
		ParallelPull: parallelPulls(k),
		Workers:      2 * goruntime.NumCPU(),
		Starts:       4 * goruntime.NumCPU(),
		Handlers:     a.runtimeHandlers,
		Admit:        a.admission(allocatable),
		Refresh:      a.heart.Refresh,
	}

	mirrors := podsource.Mirrors{Source: a.source, Core: a.client.Core, Node: a.heart.Node}
	a.worker = podworker.New(cfg, podworker.Deps{
		Pods:    a.source,
		API:     api{a.client, a.objects, mirrors},
		Runtime: a.runtime,
		Volumes: a.volumes,
		Cgroups: groups{a.cgroups, a.source},
		Objects: a.objects,
		Probes:  a.probes,
		Events:  a.events,
		Access:  a.access,
		Log:     a.log,
	})

	return nil
}

// containerConfig is what the configuration of every container depends on.
func (a *Agent) containerConfig(memory int64) criconfig.Node {
	k := &a.cfg.Kubelet
	return criconfig.Node{
		ClusterDNS:     k.ClusterDNS,
		ClusterDomain:  k.ClusterDomain,
		LogRoot:        k.PodLogsDir,
		SeccompRoot:    filepath.Join(a.cfg.RootDir, "seccomp"),
		SeccompDefault: *k.SeccompDefault,
		MemoryCapacity: memory,
		CgroupV2:       a.host.V2,
		SingleOOMKill:  k.SingleProcessOOMKill != nil && *k.SingleProcessOOMKill,
		NoSwap:         swapToForbid(a.host.V2),
		CPUQuota:       *k.CPUCFSQuota,
	}
}

// parallelPulls is how many images are pulled at once, 0 for any number.
func parallelPulls(k *kubeletconfig.Configuration) int {
	switch {
	case *k.SerializeImagePulls:
		return 1
	case k.MaxParallelImagePulls != nil:
		return *k.MaxParallelImagePulls
	}
	return 0
}

func (a *Agent) imageAccess() (*imageaccess.Access, error) {
	return imageaccess.Open(imageaccess.Config{
		RootDir:   a.cfg.RootDir,
		Policy:    a.cfg.Kubelet.ImagePullCredentialsVerificationPolicy,
		Allowlist: a.cfg.Kubelet.PreloadedImagesVerificationAllowlist,
		Log:       a.log,
	})
}

// runtimeHandlers are the container runtime's, as the node's status tells; none before there is a node.
func (a *Agent) runtimeHandlers() []v1.NodeRuntimeHandler {
	if node := a.heart.Node(); node != nil {
		return node.Status.RuntimeHandlers
	}
	return nil
}
