package config

import "github.com/trivet-node/trivet/node/kubeletconfig"

// Effect is what a setting of kubelet does here.
type Effect string

// A setting that hardens a node is Served or Refused: a node must not run without it and say nothing.
const (
	Served   Effect = "served"
	NoEffect Effect = "no effect" // accepted; a value other than the default is worth one line in the log
	Refused  Effect = "refused"   // any value but the default ends the start
)

// field is a field of KubeletConfiguration.
type field struct {
	name   string
	effect Effect
	note   string
	fine   func(k *kubeletconfig.Configuration) bool // of a refused field: a value that may stand
}

// fields are all of them. docs/node-config.md shows this table.
var fields = []field{
	{"address", Served, "", nil},
	{"allowedUnsafeSysctls", Served, "", nil},
	{"authentication", Served, "", nil},
	{"authorization", Served, "", nil},
	{"cgroupDriver", Served, "default: what the runtime says", nil},
	{"cgroupRoot", Served, "", nil},
	{"cgroupsPerQOS", NoEffect, "pods are always in groups of their quality of service", nil},
	{"clusterDNS", Served, "", nil},
	{"clusterDomain", Served, "", nil},
	{"configMapAndSecretChangeDetectionStrategy", NoEffect, "what pods use is watched", nil},
	{"containerLogMaxFiles", Served, "", nil},
	{"containerLogMaxSize", Served, "", nil},
	{"containerLogMaxWorkers", NoEffect, "logs are rotated one after the other", nil},
	{"containerLogMonitorInterval", Served, "", nil},
	{"containerRuntimeEndpoint", Served, "default: unix:///run/trivet/cri.sock", nil},
	{"contentType", NoEffect, "protobuf where the API has it", nil},
	{"cpuCFSQuota", Served, "", nil},
	{"cpuCFSQuotaPeriod", NoEffect, "the period is 100 ms", nil},
	{"cpuManagerPolicy", Refused, "pods would not get CPUs of their own", nil},
	{"cpuManagerPolicyOptions", Refused, "options of a policy that is not served", nil},
	{"cpuManagerReconcilePeriod", NoEffect, "there is no CPU manager", nil},
	{"crashLoopBackOff", Served, "", nil},
	{"defaultPodSysctls", Refused, "pods would run without them", nil},
	{"enableContentionProfiling", NoEffect, "there is no profiling endpoint", nil},
	{"enableControllerAttachDetach", Refused, "volumes would not be attached: that is the controller's work",
		nil},
	{"enableDebugFlagsHandler", Served, "/debug/flags/v is not served: 404, or 405 when it is off", nil},
	{"enableDebuggingHandlers", Served, "", nil},
	{"enableProfilingHandler", Served, "/debug/pprof/ is not served: 404, or 405 when it is off", nil},
	{"enableServer", Served, "", nil},
	{"enableSystemLogHandler", Served, "", nil},
	{"enableSystemLogQuery", NoEffect, "files of /var/log are served, the journal is not", nil},
	{"enforceNodeAllocatable", Refused, "the node's own services would not be limited; pods always are",
		onlyPods},
	{"eventBurst", Served, "", nil},
	{"eventRecordQPS", Served, "", nil},
	{"evictionHard", Served, "", nil},
	{"evictionMaxPodGracePeriod", Served, "", nil},
	{"evictionMinimumReclaim", Served, "", nil},
	{"evictionPressureTransitionPeriod", Served, "", nil},
	{"evictionSoft", Served, "", nil},
	{"evictionSoftGracePeriod", Served, "", nil},
	{"failCgroupV1", Served, "default: false", nil},
	{"failSwapOn", Served, "with false, containers do not use the swap", nil},
	{"featureGates", Served, "see the table of gates", nil},
	{"fileCheckFrequency", NoEffect, "manifests are watched", nil},
	{"hairpinMode", NoEffect, "that is the CNI plugin's", nil},
	{"healthzBindAddress", Served, "", nil},
	{"healthzPort", Served, "", nil},
	{"httpCheckFrequency", Served, "", nil},
	{"imageGCHighThresholdPercent", NoEffect, "images are not collected", nil},
	{"imageGCLowThresholdPercent", NoEffect, "images are not collected", nil},
	{"imageMaximumGCAge", NoEffect, "images are not collected", nil},
	{"imageMinimumGCAge", NoEffect, "images are not collected", nil},
	{"imagePullCredentialsVerificationPolicy", Served, "", nil},
	{"imageServiceEndpoint", Served, "", nil},
	{"iptablesDropBit", NoEffect, "no iptables rules are made", nil},
	{"iptablesMasqueradeBit", NoEffect, "no iptables rules are made", nil},
	{"kernelMemcgNotification", NoEffect, "what the kernel reports of memory is always used", nil},
	{"kubeAPIBurst", NoEffect, "the API server's priority and fairness limits the agent", nil},
	{"kubeAPIQPS", NoEffect, "the API server's priority and fairness limits the agent", nil},
	{"kubeReserved", Served, "", nil},
	{"kubeReservedCgroup", NoEffect, "see enforceNodeAllocatable", nil},
	{"kubeletCgroups", NoEffect, "the agent stays in the group of its service", nil},
	{"localStorageCapacityIsolation", Served, "ephemeral-storage is reported even without it", nil},
	{"logging", NoEffect, "see --log-level and --log-format", nil},
	{"makeIPTablesUtilChains", NoEffect, "no iptables rules are made", nil},
	{"maxOpenFiles", Served, "", nil},
	{"maxParallelImagePulls", Served, "", nil},
	{"maxPods", Served, "", nil},
	{"memoryManagerPolicy", Refused, "pods would not get memory of one NUMA node", nil},
	{"memoryReservationPolicy", NoEffect, "no memory is reserved for a pod", nil},
	{"memorySwap", NoEffect, "containers never swap", nil},
	{"memoryThrottlingFactor", NoEffect, "memory.high is not set", nil},
	{"mergeDefaultEvictionSettings", Served, "", nil},
	{"nodeLeaseDurationSeconds", Served, "", nil},
	{"nodeStatusMaxImages", Served, "", nil},
	{"nodeStatusReportFrequency", Served, "", nil},
	{"nodeStatusUpdateFrequency", Served, "", nil},
	{"oomScoreAdj", Served, "", nil},
	{"podCIDR", NoEffect, "the Node's podCIDRs count, as in kubelet with an API server", nil},
	{"podLogsDir", Served, "", nil},
	{"podPidsLimit", Served, "", nil},
	{"podsPerCore", Served, "", nil},
	{"port", Served, "", nil},
	{"preloadedImagesVerificationAllowlist", Served, "", nil},
	{"protectKernelDefaults", Served, "they are checked; false changes none of them", nil},
	{"providerID", Served, "", nil},
	{"qosReserved", Refused, "requests of guaranteed pods would not be kept from others", nil},
	{"readOnlyPort", NoEffect, "no port is opened without authentication", nil},
	{"registerNode", Served, "", nil},
	{"registerWithTaints", Served, "", nil},
	{"registryBurst", NoEffect, "see maxParallelImagePulls", nil},
	{"registryPullQPS", NoEffect, "see maxParallelImagePulls", nil},
	{"reservedMemory", Refused, "memory of a NUMA node would not be kept from pods", nil},
	{"reservedSystemCPUs", Served, "their number is not allocatable", nil},
	{"resolvConf", Served, "", nil},
	{"rotateCertificates", Served, "default: true", nil},
	{"runOnce", Refused, "kubelet refuses it, too", nil},
	{"runtimeRequestTimeout", NoEffect, "each request has a limit of its own", nil},
	{"seccompDefault", Served, "", nil},
	{"serializeImagePulls", Served, "default: false", nil},
	{"serverTLSBootstrap", Served, "", nil},
	{"showHiddenMetricsForVersion", NoEffect, "no metric is hidden", nil},
	{"shutdownGracePeriod", NoEffect, "a shutdown of the node is not noticed", nil},
	{"shutdownGracePeriodByPodPriority", NoEffect, "a shutdown of the node is not noticed", nil},
	{"shutdownGracePeriodCriticalPods", NoEffect, "a shutdown of the node is not noticed", nil},
	{"singleProcessOOMKill", Served, "", nil},
	{"staticPodPath", Served, "", nil},
	{"staticPodURL", Served, "", nil},
	{"staticPodURLHeader", Served, "", nil},
	{"streamingConnectionIdleTimeout", Served, "exec, attach and port-forward", nil},
	{"syncFrequency", NoEffect, "what changes is seen at once", nil},
	{"systemCgroups", Refused, "the node's processes would not be moved into it", nil},
	{"systemReserved", Served, "", nil},
	{"systemReservedCgroup", NoEffect, "see enforceNodeAllocatable", nil},
	{"tlsCertFile", Served, "", nil},
	{"tlsCipherSuites", Served, "", nil},
	{"tlsCurvePreferences", Served, "", nil},
	{"tlsMinVersion", Served, "VersionTLS12 or VersionTLS13; older ones are refused", nil},
	{"tlsPrivateKeyFile", Served, "", nil},
	{"topologyManagerPolicy", Refused, "pods would not be refused by the node's topology", nil},
	{"topologyManagerPolicyOptions", Refused, "options of a policy that is not served", nil},
	{"topologyManagerScope", NoEffect, "there is no topology manager", nil},
	{"tracing", NoEffect, "no spans are sent", nil},
	{"userNamespaces", NoEffect, "pods with hostUsers: false are refused", nil},
	{"volumePluginDir", NoEffect, "flex volumes are not served", nil},
	{"volumeStatsAggPeriod", NoEffect, "volumes are measured when somebody asks", nil},
}

// onlyPods reports whether nothing but pods is to be kept in the node's allocatable resources.
func onlyPods(k *kubeletconfig.Configuration) bool {
	for _, what := range k.EnforceNodeAllocatable {
		if what != "pods" && what != "none" {
			return false
		}
	}
	return true
}
