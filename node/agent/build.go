package agent

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	goruntime "runtime"
	"strconv"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"

	"github.com/trivet-node/trivet/internal/program"
	"github.com/trivet-node/trivet/node/admit"
	"github.com/trivet-node/trivet/node/criconfig"
	"github.com/trivet-node/trivet/node/csiplugin"
	"github.com/trivet-node/trivet/node/csivolume"
	"github.com/trivet-node/trivet/node/event"
	"github.com/trivet-node/trivet/node/heartbeat"
	"github.com/trivet-node/trivet/node/kubeapi"
	"github.com/trivet-node/trivet/node/objects"
	"github.com/trivet-node/trivet/node/podenv"
	"github.com/trivet-node/trivet/node/podsource"
	"github.com/trivet-node/trivet/node/podworker"
	"github.com/trivet-node/trivet/node/probe"
	"github.com/trivet-node/trivet/node/volume"
)

// KubernetesVersion is the version of kubelet whose behaviour is served; tools compare it with the API server's.
const KubernetesVersion = "v1.37.2"

// connect gets the node's identity and finds its addresses.
func (a *Agent) connect(ctx context.Context) error {
	rc, err := kubeapi.Connect(ctx, a.identity, a.log)
	if err != nil {
		return err
	}
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
	conn, err := net.Dial("udp", net.JoinHostPort(u.Hostname(), port)) // sends nothing, only asks for the route
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
	reserved, err := a.cfg.Reserved()
	if err != nil {
		return err
	}
	for dir, mode := range map[string]os.FileMode{a.cfg.RootDir: 0o750, a.cfg.Kubelet.PodLogsDir: 0o750, a.links(): 0o755} {
		if err := os.MkdirAll(dir, mode); err != nil {
			return err
		}
	}
	a.heart = heartbeat.New(a.heartConfig(reserved), a.client.Core, a.client.Coordination, a.runtime, a.events.Node, a.log)
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
	a.probes = probe.New(a.runtime, func(uid types.UID) { a.worker.Enqueue(uid) }, func(pod *v1.Pod, container, reason, text string) {
		a.events.Pod(pod, container, v1.EventTypeWarning, reason, text)
	})
	return a.makeWorker(node, allocatable)
}

// links is where the logs of containers are linked: beside those of pods, /var/log/containers.
func (a *Agent) links() string {
	return filepath.Join(filepath.Dir(filepath.Clean(a.cfg.Kubelet.PodLogsDir)), "containers")
}

func (a *Agent) heartConfig(reserved v1.ResourceList) heartbeat.Config {
	k := a.cfg.Kubelet
	return heartbeat.Config{Name: a.cfg.NodeName, IPs: a.ips, Hostname: a.cfg.NodeName, Labels: a.cfg.Labels, Taints: k.RegisterWithTaints,
		ProviderID: a.cfg.ProviderID, Register: k.RegisterNode == nil || *k.RegisterNode, Version: KubernetesVersion + "-trivet." + strings.TrimPrefix(program.Version, "v"),
		Port: k.Port, RootDir: a.cfg.RootDir, MaxPods: k.MaxPods, Reserved: reserved, Thresholds: thresholds(k.EvictionHard),
		LeaseDuration: time.Duration(k.NodeLeaseDurationSeconds) * time.Second, ReportFrequency: k.NodeStatusReportFrequency.Duration,
		CheckFrequency: k.NodeStatusUpdateFrequency.Duration}
}

// thresholds reads evictionHard, whose values are quantities or percentages.
func thresholds(hard map[string]string) heartbeat.Thresholds {
	share := func(name string) float64 {
		v, ok := strings.CutSuffix(hard[name], "%")
		f, err := strconv.ParseFloat(v, 64)
		if !ok || err != nil {
			return 0
		}
		return f / 100
	}
	t := heartbeat.Thresholds{Disk: share("nodefs.available"), Inodes: share("nodefs.inodesFree"), PIDs: share("pid.available")}
	if q, err := resource.ParseQuantity(hard["memory.available"]); err == nil {
		t.Memory = q.Value()
	}
	return t
}

func (a *Agent) makeVolumes(node podenv.Node) error {
	a.csiNode = &csiplugin.CSINodes{Client: a.client, Node: a.cfg.NodeName}
	a.drivers = csiplugin.New(csiplugin.Config{Dir: filepath.Join(a.cfg.RootDir, "plugins_registry"), Publisher: a.csiNode, Log: a.log,
		Changed: func() {
			for _, p := range a.source.List() {
				a.worker.ObjectChanged(p.UID)
			}
		}})
	tokens := volume.TokenIssuer{Client: a.client}
	csi, err := csivolume.New(csivolume.Config{Root: a.cfg.RootDir, Node: a.cfg.NodeName, Objects: a.objects, Drivers: a.drivers, Tokens: tokens,
		Claims: csivolume.ClaimStatus{Client: a.client}})
	if err != nil {
		return err
	}
	a.volumes = volume.New(volume.Config{Root: a.cfg.RootDir, Node: func() podenv.Node { return node }, Objects: a.objects, Tokens: tokens, CSI: csi, Log: a.log})
	return nil
}

func (a *Agent) makeWorker(node podenv.Node, allocatable v1.ResourceList) error {
	k := a.cfg.Kubelet
	memory, _, err := heartbeat.Memory()
	if err != nil {
		return err
	}
	dns, err := hostDNS(k.ResolverConfig)
	if err != nil {
		return err
	}
	secrets, err := os.ReadFile(filepath.Join(a.cfg.RootDir, "config.json"))
	if err != nil && !os.IsNotExist(err) {
		return fmt.Errorf("pull secrets of the node: %w", err)
	}
	cfg := podworker.Config{
		Node: criconfig.Node{ClusterDNS: k.ClusterDNS, ClusterDomain: k.ClusterDomain, HostDNS: dns, LogRoot: k.PodLogsDir,
			SeccompRoot: filepath.Join(a.cfg.RootDir, "seccomp"), SeccompDefault: k.SeccompDefault != nil && *k.SeccompDefault,
			MemoryCapacity: memory, CgroupV2: a.host.V2, CPUQuota: k.CPUCFSQuota == nil || *k.CPUCFSQuota},
		Env: node, HostIPs: a.ips, RuntimeName: a.info.Name, RootDir: a.cfg.RootDir, Links: a.links(), HostsFile: "/etc/hosts", PullSecrets: secrets,
		Workers: 2 * goruntime.NumCPU(), Starts: 4 * goruntime.NumCPU(),
		Admit: func(pod *v1.Pod, others []*v1.Pod) (string, string) {
			return admit.Check(admit.Node{Object: a.heart.Node(), Allocatable: allocatable, AllowedSysctls: k.AllowedUnsafeSysctls}, pod, others)
		},
	}
	switch {
	case k.SerializeImagePulls != nil && *k.SerializeImagePulls:
		cfg.ParallelPull = 1
	case k.MaxParallelImagePulls != nil:
		cfg.ParallelPull = *k.MaxParallelImagePulls
	}
	if p := k.CrashLoopBackOff.MaxContainerRestartPeriod; p != nil {
		cfg.MaxBackoff = p.Duration
	}
	a.worker = podworker.New(cfg, podworker.Deps{Pods: a.source, API: api{a.client, a.objects, podsource.Mirrors{Source: a.source, Core: a.client.Core, Node: a.heart.Node}}, Runtime: a.runtime, Volumes: a.volumes,
		Cgroups: groups{a.cgroups, a.source}, Objects: a.objects, Probes: a.probes,
		Events: a.events, Log: a.log})
	return nil
}

func hostDNS(path *string) (criconfig.DNS, error) {
	if path == nil || *path == "" {
		return criconfig.DNS{Servers: []string{"127.0.0.1"}, Searches: []string{"."}}, nil // as kubelet: nothing of the node's
	}
	data, err := os.ReadFile(*path)
	if os.IsNotExist(err) {
		return criconfig.DNS{}, nil
	}
	if err != nil {
		return criconfig.DNS{}, fmt.Errorf("resolver configuration: %w", err)
	}
	return criconfig.ParseResolvConf(string(data)), nil
}
