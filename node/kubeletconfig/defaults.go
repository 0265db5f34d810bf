package kubeletconfig

import (
	"encoding/json"
	"maps"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// SetDefaults fills in what was left open: zero means that, but for pointers, which distinguish zero from
// nothing.
func (k *Configuration) SetDefaults() {
	k.TypeMeta = metav1.TypeMeta{Kind: Kind, APIVersion: APIVersion}

	k.defaultServer()
	k.defaultNode()
	k.defaultRuntime()
	k.defaultPods()
	k.defaultResources()
	k.defaultEviction()
}

// or gives p a value if it has none.
func or[T comparable](p *T, value T) {
	var zero T
	if *p == zero {
		*p = value
	}
}

// orNew makes p point at a value if it points at none.
func orNew[T any](p **T, value T) {
	if *p == nil {
		*p = &value
	}
}

func (k *Configuration) defaultServer() {
	orNew(&k.EnableServer, true)
	or(&k.Address, "0.0.0.0")
	or(&k.Port, 10250)
	orNew(&k.HealthzPort, 10248)
	or(&k.HealthzBindAddress, "127.0.0.1")

	// kubelet: false. A node whose certificate ends is lost.
	orNew(&k.RotateCertificates, true)
	or(&k.StreamingIdleTimeout.Duration, 4*time.Hour)

	orNew(&k.Authentication.Anonymous.Enabled, false)
	orNew(&k.Authentication.Webhook.Enabled, true)
	or(&k.Authentication.Webhook.CacheTTL.Duration, 2*time.Minute)
	or(&k.Authorization.Mode, "Webhook")
	or(&k.Authorization.Webhook.CacheAuthorizedTTL.Duration, 5*time.Minute)
	or(&k.Authorization.Webhook.CacheUnauthorizedTTL.Duration, 30*time.Second)

	orNew(&k.EnableDebuggingHandlers, true)
	orNew(&k.EnableSystemLogHandler, true)
	orNew(&k.EnableSystemLogQuery, false)
	orNew(&k.EnableProfilingHandler, true)
	orNew(&k.EnableDebugFlagsHandler, true)

	orNew(&k.EventRecordQPS, 50)
	or(&k.EventBurst, 100)
	orNew(&k.KubeAPIQPS, 50)
	or(&k.KubeAPIBurst, 100)
	or(&k.ContentType, "application/vnd.kubernetes.protobuf")
	or(&k.Logging.Format, "text")
	switch string(k.Logging.FlushFrequency) {
	case ``, `0`, `"0s"`:
		k.Logging.FlushFrequency = json.RawMessage(`"5s"`)
	}
}

func (k *Configuration) defaultNode() {
	// As in kubelet, a status that is looked at at another pace is reported at that pace.
	if k.NodeStatusUpdateFrequency.Duration != 0 {
		or(&k.NodeStatusReportFrequency, k.NodeStatusUpdateFrequency)
	}

	or(&k.NodeStatusReportFrequency.Duration, 5*time.Minute)
	or(&k.NodeStatusUpdateFrequency.Duration, 10*time.Second)
	or(&k.NodeLeaseDurationSeconds, 40)
	orNew(&k.NodeStatusMaxImages, 50)
	orNew(&k.RegisterNode, true)
	or(&k.MaxPods, 110)

	orNew(&k.OOMScoreAdj, -999)
	or(&k.MaxOpenFiles, 1_000_000)
	orNew(&k.FailSwapOn, true)

	// kubelet: true.
	orNew(&k.FailCgroupV1, false)
	orNew(&k.EnableControllerAttach, true)
	orNew(&k.MakeIPTablesUtilChains, true)
	orNew(&k.IPTablesMasqueradeBit, 14)
	orNew(&k.IPTablesDropBit, 15)
	or(&k.HairpinMode, "promiscuous-bridge")
}

func (k *Configuration) defaultRuntime() {
	// kubelet: containerd's.
	or(&k.ContainerRuntimeEndpoint, "unix:///run/trivet/cri.sock")
	or(&k.RuntimeRequestTimeout.Duration, 2*time.Minute)

	// kubelet: true unless maxParallelImagePulls is above 1.
	orNew(&k.SerializeImagePulls, false)
	orNew(&k.RegistryPullQPS, 5)
	or(&k.RegistryBurst, 10)

	or(&k.ImageMinimumGCAge.Duration, 2*time.Minute)
	orNew(&k.ImageGCHighThreshold, 85)
	orNew(&k.ImageGCLowThreshold, 80)

	or(&k.PodLogsDir, "/var/log/pods")
	or(&k.ContainerLogMaxSize, "10Mi")
	orNew(&k.ContainerLogMaxFiles, 5)
	orNew(&k.ContainerLogMaxWorkers, 1)
	orNew(&k.ContainerLogInterval, metav1.Duration{Duration: 10 * time.Second})
}

func (k *Configuration) defaultPods() {
	or(&k.SyncFrequency.Duration, time.Minute)
	or(&k.FileCheckFrequency.Duration, 20*time.Second)
	or(&k.HTTPCheckFrequency.Duration, 20*time.Second)
	orNew(&k.ResolverConfig, "/etc/resolv.conf")
	orNew(&k.SeccompDefault, false)
	orNew(&k.CrashLoopBackOff.MaxContainerRestartPeriod, metav1.Duration{Duration: 5 * time.Minute})
	or(&k.VolumePluginDir, "/usr/libexec/kubernetes/kubelet-plugins/volume/exec/")
	or(&k.VolumeStatsAggPeriod.Duration, time.Minute)
	or(&k.ConfigMapAndSecretStrategy, "Watch")

	// With the gate off nothing is verified, and a policy is an error.
	if k.Enabled("KubeletEnsureSecretPulledImages") {
		or(&k.ImagePullCredentialsVerificationPolicy, "NeverVerifyPreloadedImages")
	}
}

func (k *Configuration) defaultResources() {
	orNew(&k.CgroupsPerQOS, true)
	if k.PodPidsLimit == nil || *k.PodPidsLimit < 0 {
		k.PodPidsLimit = new(int64(-1))
	}

	orNew(&k.CPUCFSQuota, true)
	orNew(&k.CPUCFSQuotaPeriod, metav1.Duration{Duration: 100 * time.Millisecond})
	or(&k.MemoryReservationPolicy, "None")
	if k.EnforceNodeAllocatable == nil {
		k.EnforceNodeAllocatable = []string{"pods"}
	}

	orNew(&k.LocalStorageCapacityIsolation, true)

	or(&k.CPUManagerPolicy, "none")
	or(&k.CPUManagerReconcilePeriod.Duration, 10*time.Second)
	or(&k.MemoryManagerPolicy, "None")
	or(&k.TopologyManagerPolicy, "none")
	or(&k.TopologyManagerScope, "container")
}

// defaultHard is kubelet's evictionHard.
var defaultHard = map[string]string{
	"memory.available":   "100Mi",
	"nodefs.available":   "10%",
	"nodefs.inodesFree":  "5%",
	"imagefs.available":  "15%",
	"imagefs.inodesFree": "5%",
}

func (k *Configuration) defaultEviction() {
	or(&k.EvictionTransitionPeriod.Duration, 5*time.Minute)
	orNew(&k.MergeDefaultEviction, false)

	switch {
	case k.EvictionHard == nil:
		k.EvictionHard = maps.Clone(defaultHard)
	case *k.MergeDefaultEviction:
		for signal, value := range defaultHard {
			if _, set := k.EvictionHard[signal]; !set {
				k.EvictionHard[signal] = value
			}
		}
	}
}
