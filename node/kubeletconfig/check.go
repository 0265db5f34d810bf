package kubeletconfig

import (
	"errors"
	"fmt"
	"math"
	"net"
	"path/filepath"
	"slices"
	"time"
	"unicode"

	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/component-helpers/node/util/sysctl"
)

// problems gathers what is wrong with a configuration, all of it: a file is mended once.
type problems struct{ errs []error }

func (p *problems) when(wrong bool, format string, args ...any) {
	if wrong {
		p.errs = append(p.errs, fmt.Errorf(format, args...))
	}
}

func (p *problems) add(err error) {
	if err != nil {
		p.errs = append(p.errs, err)
	}
}

// oneOf is about a field that is one of a few words.
func (p *problems) oneOf(name, value string, words ...string) {
	p.when(!slices.Contains(words, value), "%s %q is none of %q", name, value, words)
}

// Check applies kubelet's rules, and some that kubelet applies after its start only.
func (k *Configuration) Check() error {
	p := &problems{}
	k.checkServer(p)
	k.Tracing.check(p)
	k.checkNode(p)
	k.checkRuntime(p)
	k.checkPods(p)
	k.checkResources(p)
	k.checkManagers(p)
	k.checkShutdown(p)
	p.add(k.checkEviction())
	p.add(k.checkImagePolicy())
	p.add(k.checkGates())
	return errors.Join(p.errs...)
}

func (t *Tracing) check(p *problems) {
	if t == nil {
		return
	}
	if rate := t.SamplingRatePerMillion; rate != nil {
		p.when(*rate < 0 || *rate > 1e6,
			"tracing.samplingRatePerMillion %d is not between 0 and 1000000", *rate)
	}
	if endpoint := t.Endpoint; endpoint != nil {
		p.when(*endpoint == "", "tracing.endpoint is empty")
	}
}

func (k *Configuration) checkServer(p *problems) {
	// Zero is a port that is not served.
	port := func(name string, n, least int32) {
		p.when(n < least || n > math.MaxUint16, "%s %d is not a port", name, n)
	}

	port("port", k.Port, 1)
	port("readOnlyPort", k.ReadOnlyPort, 0)
	port("healthzPort", *k.HealthzPort, 0)
	for name, address := range map[string]string{
		"address":            k.Address,
		"healthzBindAddress": k.HealthzBindAddress,
	} {
		p.when(net.ParseIP(address) == nil, "%s %q is not an IP address", name, address)
	}

	p.oneOf("authorization.mode", k.Authorization.Mode, "Webhook", "AlwaysAllow")
	for name, ttl := range map[string]time.Duration{
		"authentication.webhook.cacheTTL":            k.Authentication.Webhook.CacheTTL.Duration,
		"authorization.webhook.cacheAuthorizedTTL":   k.Authorization.Webhook.CacheAuthorizedTTL.Duration,
		"authorization.webhook.cacheUnauthorizedTTL": k.Authorization.Webhook.CacheUnauthorizedTTL.Duration,
		"streamingConnectionIdleTimeout":             k.StreamingIdleTimeout.Duration,
	} {
		p.when(ttl < 0, "%s %v is negative", name, ttl)
	}

	p.when((k.TLSCertFile == "") != (k.TLSPrivateKeyFile == ""),
		"tlsCertFile and tlsPrivateKeyFile must be set together")
	_, err := k.TLS()
	p.add(err)
	p.when(k.ServerTLSBootstrap && !k.Enabled("RotateKubeletServerCertificate"),
		"serverTLSBootstrap needs the feature gate RotateKubeletServerCertificate")
	p.when(*k.EnableSystemLogQuery && !*k.EnableSystemLogHandler,
		"enableSystemLogQuery needs enableSystemLogHandler")

	p.when(*k.EventRecordQPS < 0 || k.EventBurst < 0,
		"eventRecordQPS %d and eventBurst %d must not be negative",
		*k.EventRecordQPS, k.EventBurst)
	p.when(*k.KubeAPIQPS < 0 || k.KubeAPIBurst < 0, "kubeAPIQPS %d and kubeAPIBurst %d must not be negative",
		*k.KubeAPIQPS, k.KubeAPIBurst)
	p.oneOf("logging.format", k.Logging.Format, "text", "json")
}

func (k *Configuration) checkNode(p *problems) {
	p.when(k.NodeLeaseDurationSeconds <= 0, "nodeLeaseDurationSeconds %d must be positive",
		k.NodeLeaseDurationSeconds)
	p.when(k.NodeStatusUpdateFrequency.Duration <= 0, "nodeStatusUpdateFrequency %v must be positive",
		k.NodeStatusUpdateFrequency.Duration)
	p.when(k.NodeStatusReportFrequency.Duration <= 0, "nodeStatusReportFrequency %v must be positive",
		k.NodeStatusReportFrequency.Duration)
	p.when(*k.NodeStatusMaxImages < -1, "nodeStatusMaxImages %d must be -1 or more", *k.NodeStatusMaxImages)
	p.when(k.MaxPods < 0, "maxPods %d must not be negative", k.MaxPods)
	p.when(k.PodsPerCore < 0, "podsPerCore %d must not be negative", k.PodsPerCore)
	p.when(k.MaxOpenFiles < 0, "maxOpenFiles %d must not be negative", k.MaxOpenFiles)
	p.when(*k.OOMScoreAdj < -1000 || *k.OOMScoreAdj > 1000, "oomScoreAdj %d must be between -1000 and 1000",
		*k.OOMScoreAdj)

	for i, taint := range k.RegisterWithTaints {
		p.add(checkTaint(i, taint))
	}

	p.when(!upTo(*k.IPTablesDropBit, 31), "iptablesDropBit %d must be between 0 and 31",
		*k.IPTablesDropBit)
	p.when(!upTo(*k.IPTablesMasqueradeBit, 31), "iptablesMasqueradeBit %d must be between 0 and 31",
		*k.IPTablesMasqueradeBit)
	p.oneOf("hairpinMode", k.HairpinMode, "none", "hairpin-veth", "promiscuous-bridge")
}

// upTo reports whether n is from 0 to most.
func upTo(n, most int32) bool { return 0 <= n && n <= most }

func (k *Configuration) checkRuntime(p *problems) {
	p.when(k.ContainerRuntimeEndpoint == "", "containerRuntimeEndpoint is empty")
	p.when(k.MaxParallelImagePulls != nil && *k.MaxParallelImagePulls < 1,
		"maxParallelImagePulls must be positive")
	p.when(*k.SerializeImagePulls && k.MaxParallelImagePulls != nil && *k.MaxParallelImagePulls > 1,
		"maxParallelImagePulls cannot be above 1 unless serializeImagePulls is false")
	p.when(*k.RegistryPullQPS < 0 || k.RegistryBurst < 0,
		"registryPullQPS %d and registryBurst %d must not be negative",
		*k.RegistryPullQPS, k.RegistryBurst)

	high, low := *k.ImageGCHighThreshold, *k.ImageGCLowThreshold
	p.when(!upTo(high, 100), "imageGCHighThresholdPercent %d must be between 0 and 100", high)
	p.when(!upTo(low, 100), "imageGCLowThresholdPercent %d must be between 0 and 100", low)
	p.when(low >= high, "imageGCLowThresholdPercent %d must be less than imageGCHighThresholdPercent %d",
		low, high)
	least, most := k.ImageMinimumGCAge.Duration, k.ImageMaximumGCAge.Duration
	p.when(least < 0 || most < 0, "imageMinimumGCAge %v and imageMaximumGCAge %v must not be negative",
		least, most)
	p.when(most > 0 && most <= least, "imageMaximumGCAge %v must be greater than imageMinimumGCAge %v",
		most, least)

	dir := k.PodLogsDir
	p.when(!filepath.IsAbs(dir) || filepath.Clean(dir) != dir,
		"podLogsDir %q must be absolute and normalized", dir)
	p.when(slices.ContainsFunc([]rune(dir), func(r rune) bool { return r > unicode.MaxASCII }),
		"podLogsDir %q must be ASCII", dir)

	size, err := resource.ParseQuantity(k.ContainerLogMaxSize)
	p.when(err != nil, "containerLogMaxSize %q: %v", k.ContainerLogMaxSize, err)
	p.when(err == nil && size.Sign() <= 0, "containerLogMaxSize %q must be positive", k.ContainerLogMaxSize)
	p.when(*k.ContainerLogMaxFiles <= 1, "containerLogMaxFiles %d must be greater than 1",
		*k.ContainerLogMaxFiles)
	p.when(*k.ContainerLogMaxWorkers < 1, "containerLogMaxWorkers %d must be positive",
		*k.ContainerLogMaxWorkers)
	p.when(k.ContainerLogInterval.Duration < 3*time.Second,
		"containerLogMonitorInterval %v must be 3s or more",
		k.ContainerLogInterval.Duration)
}

func (k *Configuration) checkPods(p *problems) {
	for i, address := range k.ClusterDNS {
		p.when(net.ParseIP(address) == nil, "clusterDNS[%d] %q is not an IP address", i, address)
	}

	p.when(k.SyncFrequency.Duration < 0, "syncFrequency %v is negative", k.SyncFrequency.Duration)
	p.when(k.HTTPCheckFrequency.Duration <= 0, "httpCheckFrequency %v must be positive",
		k.HTTPCheckFrequency.Duration)
	if d := k.CrashLoopBackOff.MaxContainerRestartPeriod; d != nil {
		p.when(d.Duration < time.Second || d.Duration > 5*time.Minute,
			"crashLoopBackOff.maxContainerRestartPeriod %v must be between 1s and 5m", d.Duration)
	}

	for i, name := range k.AllowedUnsafeSysctls {
		space, _, _ := sysctl.GetNamespace(name)
		p.when(
			!sysctlPattern.MatchString(name),
			"allowedUnsafeSysctls[%d] %q is not the name of a sysctl",
			i,
			name,
		)

		p.when(space == sysctl.UnknownNamespace, "allowedUnsafeSysctls[%d] %q is not known to be namespaced",
			i, name)
	}

	p.oneOf("configMapAndSecretChangeDetectionStrategy", k.ConfigMapAndSecretStrategy, "Get", "Cache",
		"Watch")

	if k.UserNamespaces != nil && k.UserNamespaces.IDsPerPod != nil {
		n := *k.UserNamespaces.IDsPerPod
		p.when(n < 65536 || n%65536 != 0 || n > math.MaxUint32,
			"userNamespaces.idsPerPod %d must be a multiple of 65536, at most %d", n, int64(math.MaxUint32))
	}
}

func (k *Configuration) checkResources(p *problems) {
	p.oneOf("cgroupDriver", k.CgroupDriver, "", "cgroupfs", "systemd")
	p.when(k.SystemCgroups != "" && k.CgroupRoot == "", "systemCgroups needs cgroupRoot")
	period := k.CPUCFSQuotaPeriod.Duration
	p.when(period < time.Millisecond || period > time.Second,
		"cpuCFSQuotaPeriod %v must be between 1ms and 1s", period)
	p.oneOf("memorySwap.swapBehavior", k.MemorySwap.SwapBehavior, "", "NoSwap", "LimitedSwap")
	p.oneOf("memoryReservationPolicy", k.MemoryReservationPolicy, "None", "TieredReservation")
	if f := k.MemoryThrottlingFactor; f != nil {
		p.when(*f <= 0 || *f > 1, "memoryThrottlingFactor %v must be above 0 and at most 1", *f)
	}

	all := sets.New(k.EnforceNodeAllocatable...)
	p.when(len(all) != len(k.EnforceNodeAllocatable), "enforceNodeAllocatable %q has duplicates",
		k.EnforceNodeAllocatable)
	p.when(all.Has("none") && len(all) > 1, "enforceNodeAllocatable: none stands alone")
	for _, what := range k.EnforceNodeAllocatable {
		p.oneOf("enforceNodeAllocatable", what, "pods", "system-reserved", "system-reserved-compressible",
			"kube-reserved",
			"kube-reserved-compressible", "none")
		p.when(what != "none" && !*k.CgroupsPerQOS, "enforceNodeAllocatable %q needs cgroupsPerQOS", what)
	}

	for part, group := range map[string]string{
		"system-reserved": k.SystemReservedCgroup,
		"kube-reserved":   k.KubeReservedCgroup,
	} {
		hard, soft := all.Has(part), all.Has(part+"-compressible")
		p.when(hard && soft, "enforceNodeAllocatable has both %s and %s-compressible", part, part)
		p.when((hard || soft) && group == "", "enforceNodeAllocatable %s needs the name of its control group",
			part)
	}

	p.when(k.ReservedSystemCPUs != "" && (k.SystemReservedCgroup != "" || k.KubeReservedCgroup != ""),
		"reservedSystemCPUs cannot stand beside systemReservedCgroup or kubeReservedCgroup")
	_, err := k.Reserved()
	p.add(err)
}

func (k *Configuration) checkManagers(p *problems) {
	p.oneOf("cpuManagerPolicy", k.CPUManagerPolicy, "none", "static")
	p.oneOf("memoryManagerPolicy", k.MemoryManagerPolicy, "None", "Static")
	p.oneOf("topologyManagerPolicy", k.TopologyManagerPolicy, "none", "best-effort", "restricted",
		"single-numa-node")
	p.oneOf("topologyManagerScope", k.TopologyManagerScope, "container", "pod")
}

func (k *Configuration) checkShutdown(p *problems) {
	all, critical := k.ShutdownGracePeriod.Duration, k.ShutdownGraceCriticalPods.Duration
	p.when(critical > all, "shutdownGracePeriodCriticalPods %v must be at most shutdownGracePeriod %v",
		critical, all)
	for name, d := range map[string]time.Duration{
		"shutdownGracePeriod":             all,
		"shutdownGracePeriodCriticalPods": critical,
	} {
		p.when(d != 0 && d < time.Second, "%s %v must be zero or at least 1s", name, d)
	}
	p.when(len(k.ShutdownGraceByPriority) > 0 && (all > 0 || critical > 0),
		"shutdownGracePeriodByPodPriority and shutdownGracePeriod cannot both be set")
}
