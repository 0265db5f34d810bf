package config

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/trivet-node/trivet/node/kubeletconfig"
	"github.com/trivet-node/trivet/node/threshold"
)

// resolve makes plain values of settings that complete has checked. What is wrong with them is an error of
// complete; that resolve can still fail is only the other half of parsing.
func (c *settings) resolve() (Config, error) {
	k := &c.Kubelet
	out := Config{
		NodeName:        c.NodeName,
		RootDir:         c.RootDir,
		RuntimeEndpoint: c.RuntimeEndpoint,
		ImageEndpoint:   c.ImageEndpoint,

		Identity:   c.identity(),
		Node:       c.node(),
		Containers: c.containers(),
		Images:     images(k),
		Static:     static(k),
		Events:     Events{PerSecond: int(*k.EventRecordQPS), Burst: int(k.EventBurst)},
		Process:    Process{OOMScoreAdj: int(*k.OOMScoreAdj), MaxOpenFiles: uint64(k.MaxOpenFiles)},
		Machine:    machine(k),
		Gates:      gates(k),
		Tracing:    tracing(k.Tracing),

		Kubelet: k,
		Flags:   c.Flags,
		Notices: c.Notices,
	}
	if *k.HealthzPort != 0 {
		out.HealthAddress = address(k.HealthzBindAddress, *k.HealthzPort)
	}

	var err error
	if out.Cgroups, err = cgroups(k); err != nil {
		return Config{}, err
	}
	if out.Resources, err = c.resources(); err != nil {
		return Config{}, err
	}
	if out.Eviction, err = eviction(k); err != nil {
		return Config{}, err
	}
	if out.Logs, err = logs(k); err != nil {
		return Config{}, err
	}

	out.API, err = api(k)
	return out, err
}

// syncsPerList is how many periods of syncFrequency pass between two lists of the API's objects: kubelet
// looks at its pods once a minute, and a list is dearer.
const syncsPerList = 10

func (c *settings) identity() Identity {
	return Identity{
		Kubeconfig: c.Kubeconfig,
		Bootstrap:  c.Bootstrap,
		CertDir:    c.CertDir,
		Rotate:     *c.Kubelet.RotateCertificates,
		Relist:     syncsPerList * max(time.Second, c.Kubelet.SyncFrequency.Duration),
	}
}

func cgroups(k *kubeletconfig.Configuration) (Cgroups, error) {
	out := Cgroups{
		Driver:   k.CgroupDriver,
		Root:     k.CgroupRoot,
		PodPIDs:  *k.PodPidsLimit,
		CPUQuota: *k.CPUCFSQuota,
		HoldPods: slices.Contains(k.EnforceNodeAllocatable, "pods"),
	}

	if k.Enabled("MemoryQoS") {
		out.Memory.Tiered = k.MemoryReservationPolicy == "TieredReservation"
		if k.MemoryThrottlingFactor != nil {
			out.Memory.Throttling = *k.MemoryThrottlingFactor
		}
	}

	system, kube, err := k.ReservedParts()
	if err != nil {
		return Cgroups{}, err
	}

	// The order is kubelet's.
	parts := map[string]Daemons{
		"system-reserved": {Name: "System Reserved", Group: k.SystemReservedCgroup, Reserved: system},
		"kube-reserved":   {Name: "Kube Reserved", Group: k.KubeReservedCgroup, Reserved: kube},
	}

	for _, part := range []string{"system-reserved", "kube-reserved"} {
		one := parts[part]
		one.Protected = k.Enabled("MemoryQoS")
		one.Compressible = slices.Contains(k.EnforceNodeAllocatable, part+"-compressible")
		if one.Compressible || slices.Contains(k.EnforceNodeAllocatable, part) {
			out.Daemons = append(out.Daemons, one)
		}
	}

	return out, nil
}

func static(k *kubeletconfig.Configuration) Static {
	return Static{
		Path:      k.StaticPodPath,
		URL:       k.StaticPodURL,
		URLHeader: http.Header(k.StaticPodURLHeader),
		Interval:  k.HTTPCheckFrequency.Duration,
	}
}

func gates(k *kubeletconfig.Configuration) Gates {
	return Gates{
		Checkpoint:           k.Enabled("ContainerCheckpoint"),
		Statusz:              k.Enabled("ComponentStatusz"),
		Flagz:                k.Enabled("ComponentFlagz"),
		PodCertificates:      k.Enabled("PodCertificateRequest"),
		PodResources:         k.Enabled("PodLevelResources"),
		ResizePods:           k.Enabled("InPlacePodLevelResourcesVerticalScaling"),
		RestartAllContainers: k.Enabled("RestartAllContainersOnContainerExits"),
		All:                  k.Gates(),
	}
}

// tracing is what kubelet makes of the field: an endpoint that is not given is the local collector's, and
// without a rate only those traces are kept that began elsewhere.
func tracing(t *kubeletconfig.Tracing) Tracing {
	if t == nil {
		return Tracing{}
	}
	out := Tracing{Endpoint: kubeletconfig.DefaultTracingEndpoint}
	if t.Endpoint != nil {
		out.Endpoint = *t.Endpoint
	}
	if t.SamplingRatePerMillion != nil {
		out.SamplesPerMillion = int(*t.SamplingRatePerMillion)
	}
	return out
}

func address(host string, port int32) string { return net.JoinHostPort(host, strconv.Itoa(int(port))) }

func (c *settings) node() Node {
	k := &c.Kubelet
	return Node{
		Register:        *k.RegisterNode,
		IPs:             c.specifiedIPs(),
		Labels:          c.Labels,
		Taints:          k.RegisterWithTaints,
		ProviderID:      k.ProviderID,
		ExternalCloud:   c.CloudProvider != "",
		Port:            k.Port,
		MaxPods:         k.MaxPods,
		PodsPerCore:     int64(k.PodsPerCore),
		MaxImages:       int(*k.NodeStatusMaxImages),
		UsersPerPod:     usersPerPod(k.UserNamespaces),
		CheckFrequency:  k.NodeStatusUpdateFrequency.Duration,
		ReportFrequency: k.NodeStatusReportFrequency.Duration,
		LeaseDuration:   time.Duration(k.NodeLeaseDurationSeconds) * time.Second,
	}
}

// defaultUsersPerPod is kubelet's: as many IDs as programs expect that there are.
const defaultUsersPerPod = 65536

// usersPerPod is how many IDs the user namespace of a pod has. The number was checked.
func usersPerPod(configured *kubeletconfig.UserNamespaces) uint32 {
	if configured == nil || configured.IDsPerPod == nil {
		return defaultUsersPerPod
	}
	return uint32(*configured.IDsPerPod)
}

// specifiedIPs are the addresses of --node-ip that say more than which family is preferred.
func (c *settings) specifiedIPs() []netip.Addr {
	var out []netip.Addr
	for _, ip := range c.NodeIPs {
		if a, ok := netip.AddrFromSlice(ip); ok && !a.Unmap().IsUnspecified() {
			out = append(out, a.Unmap())
		}
	}
	return out
}

func (c *settings) resources() (Resources, error) {
	k := &c.Kubelet
	reserved, err := k.Reserved()
	if err != nil {
		return Resources{}, err
	}

	hard, err := threshold.ParseSet(k.EvictionHard)
	if err != nil {
		return Resources{}, fmt.Errorf("evictionHard: %w", err)
	}

	return Resources{
		Reserved:       reserved,
		EvictionHard:   hard,
		AllAllocatable: c.IgnoreEviction,
		LocalStorage:   *k.LocalStorageCapacityIsolation,
	}, nil
}

func eviction(k *kubeletconfig.Configuration) (Eviction, error) {
	all, err := threshold.Statements{
		Hard:           k.EvictionHard,
		Soft:           k.EvictionSoft,
		SoftGrace:      k.EvictionSoftGracePeriod,
		MinimumReclaim: k.EvictionMinimumReclaim,
		OfPods:         slices.Contains(k.EnforceNodeAllocatable, "pods"),
	}.List()
	if err != nil {
		return Eviction{}, fmt.Errorf("eviction: %w", err)
	}

	return Eviction{
		Thresholds:   all,
		MaxPodGrace:  int64(k.EvictionMaxPodGrace),
		PressureHold: k.EvictionTransitionPeriod.Duration,
	}, nil
}

func (c *settings) containers() Containers {
	k := &c.Kubelet
	return Containers{
		ClusterDNS:     k.ClusterDNS,
		ClusterDomain:  k.ClusterDomain,
		ResolverConfig: *k.ResolverConfig,
		SeccompDefault: *k.SeccompDefault,
		SingleOOMKill:  k.SingleProcessOOMKill != nil && *k.SingleProcessOOMKill,
		LimitedSwap:    k.MemorySwap.SwapBehavior == "LimitedSwap",
		AllowedSysctls: k.AllowedUnsafeSysctls,
		MaxBackoff:     k.CrashLoopBackOff.MaxContainerRestartPeriod.Duration,
		Ended:          c.Ended,
	}
}

func images(k *kubeletconfig.Configuration) Images {
	out := Images{
		Verification: k.ImagePullCredentialsVerificationPolicy,
		Allowlist:    k.PreloadedImagesVerificationAllowlist,
		HighPercent:  int(*k.ImageGCHighThreshold),
		LowPercent:   int(*k.ImageGCLowThreshold),
		MinAge:       k.ImageMinimumGCAge.Duration,
		MaxAge:       k.ImageMaximumGCAge.Duration,
	}
	switch {
	case *k.SerializeImagePulls:
		out.ParallelPulls = 1
	case k.MaxParallelImagePulls != nil:
		out.ParallelPulls = *k.MaxParallelImagePulls
	}
	return out
}

func machine(k *kubeletconfig.Configuration) Machine {
	return Machine{
		NoCgroupV1:      *k.FailCgroupV1,
		NoSwap:          *k.FailSwapOn,
		KernelDefaults:  k.ProtectKernelDefaults,
		NeedsGroupKills: k.SingleProcessOOMKill != nil && !*k.SingleProcessOOMKill,
	}
}

func logs(k *kubeletconfig.Configuration) (Logs, error) {
	size, err := resource.ParseQuantity(k.ContainerLogMaxSize)
	if err != nil {
		return Logs{}, fmt.Errorf("containerLogMaxSize %q: %w", k.ContainerLogMaxSize, err)
	}
	return Logs{
		Dir:      k.PodLogsDir,
		MaxSize:  size.Value(),
		MaxFiles: *k.ContainerLogMaxFiles,
		Workers:  int(*k.ContainerLogMaxWorkers),
		Interval: k.ContainerLogInterval.Duration,
	}, nil
}

func api(k *kubeletconfig.Configuration) (API, error) {
	tls, err := k.TLS()
	if err != nil {
		return API{}, err
	}

	authentication, authorization := &k.Authentication, &k.Authorization
	return API{
		Enabled:        *k.EnableServer,
		Address:        address(k.Address, k.Port),
		TLS:            tls,
		CertFile:       k.TLSCertFile,
		KeyFile:        k.TLSPrivateKeyFile,
		ClusterSigner:  k.ServerTLSBootstrap,
		ClientCAFile:   authentication.X509.ClientCAFile,
		Anonymous:      *authentication.Anonymous.Enabled,
		TokenReview:    *authentication.Webhook.Enabled,
		AlwaysAllow:    authorization.Mode == "AlwaysAllow",
		TokenTTL:       authentication.Webhook.CacheTTL.Duration,
		AllowTTL:       authorization.Webhook.CacheAuthorizedTTL.Duration,
		DenyTTL:        authorization.Webhook.CacheUnauthorizedTTL.Duration,
		Debugging:      *k.EnableDebuggingHandlers,
		SystemLogs:     *k.EnableSystemLogHandler,
		Profiling:      *k.EnableProfilingHandler,
		DebugFlags:     *k.EnableDebugFlagsHandler,
		StreamIdleTime: k.StreamingIdleTimeout.Duration,
	}, nil
}
