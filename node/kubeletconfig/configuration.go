// Package kubeletconfig is KubeletConfiguration (kubelet.config.k8s.io/v1beta1) of kubelet 1.37: its
// fields, defaults, rules and feature gates. What the agent does with each is for package config to say.
// The type is not k8s.io/kubelet's, as that one links component-base into the agent.
package kubeletconfig

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Kind and APIVersion are those of a file.
const (
	Kind       = "KubeletConfiguration"
	APIVersion = "kubelet.config.k8s.io/v1beta1"
)

// Configuration has all fields of KubeletConfiguration, in groups: a file is decoded strictly into it, and
// /configz shows it.
type Configuration struct {
	metav1.TypeMeta `json:",inline"`

	EnableServer             *bool               `json:"enableServer,omitempty"`
	StaticPodPath            string              `json:"staticPodPath,omitempty"`
	PodLogsDir               string              `json:"podLogsDir,omitempty"`
	SyncFrequency            metav1.Duration     `json:"syncFrequency,omitempty"`
	FileCheckFrequency       metav1.Duration     `json:"fileCheckFrequency,omitempty"`
	HTTPCheckFrequency       metav1.Duration     `json:"httpCheckFrequency,omitempty"`
	StaticPodURL             string              `json:"staticPodURL,omitempty"`
	StaticPodURLHeader       map[string][]string `json:"staticPodURLHeader,omitempty"`
	Address                  string              `json:"address,omitempty"`
	Port                     int32               `json:"port,omitempty"`
	ReadOnlyPort             int32               `json:"readOnlyPort,omitempty"`
	TLSCertFile              string              `json:"tlsCertFile,omitempty"`
	TLSPrivateKeyFile        string              `json:"tlsPrivateKeyFile,omitempty"`
	TLSCipherSuites          []string            `json:"tlsCipherSuites,omitempty"`
	TLSCurvePreferences      []int32             `json:"tlsCurvePreferences,omitempty"`
	TLSMinVersion            string              `json:"tlsMinVersion,omitempty"`
	RotateCertificates       *bool               `json:"rotateCertificates,omitempty"`
	ServerTLSBootstrap       bool                `json:"serverTLSBootstrap,omitempty"`
	Authentication           Authentication      `json:"authentication"`
	Authorization            Authorization       `json:"authorization"`
	RegistryPullQPS          *int32              `json:"registryPullQPS,omitempty"`
	RegistryBurst            int32               `json:"registryBurst,omitempty"`
	EventRecordQPS           *int32              `json:"eventRecordQPS,omitempty"`
	EventBurst               int32               `json:"eventBurst,omitempty"`
	EnableDebuggingHandlers  *bool               `json:"enableDebuggingHandlers,omitempty"`
	EnableContentionProfiles bool                `json:"enableContentionProfiling,omitempty"`
	HealthzPort              *int32              `json:"healthzPort,omitempty"`
	HealthzBindAddress       string              `json:"healthzBindAddress,omitempty"`
	OOMScoreAdj              *int32              `json:"oomScoreAdj,omitempty"`
	ClusterDomain            string              `json:"clusterDomain,omitempty"`
	ClusterDNS               []string            `json:"clusterDNS,omitempty"`
	StreamingIdleTimeout     metav1.Duration     `json:"streamingConnectionIdleTimeout,omitempty"`
	Logging                  Logging             `json:"logging,omitempty"`
	Tracing                  *Tracing            `json:"tracing,omitempty"`
	FeatureGates             map[string]bool     `json:"featureGates,omitempty"`
	EnableSystemLogHandler   *bool               `json:"enableSystemLogHandler,omitempty"`
	EnableSystemLogQuery     *bool               `json:"enableSystemLogQuery,omitempty"`
	EnableProfilingHandler   *bool               `json:"enableProfilingHandler,omitempty"`
	EnableDebugFlagsHandler  *bool               `json:"enableDebugFlagsHandler,omitempty"`
	ShowHiddenMetrics        string              `json:"showHiddenMetricsForVersion,omitempty"`
	ContentType              string              `json:"contentType,omitempty"`
	KubeAPIQPS               *int32              `json:"kubeAPIQPS,omitempty"`
	KubeAPIBurst             int32               `json:"kubeAPIBurst,omitempty"`

	// The node.
	NodeStatusUpdateFrequency metav1.Duration `json:"nodeStatusUpdateFrequency,omitempty"`
	NodeStatusReportFrequency metav1.Duration `json:"nodeStatusReportFrequency,omitempty"`
	NodeLeaseDurationSeconds  int32           `json:"nodeLeaseDurationSeconds,omitempty"`
	NodeStatusMaxImages       *int32          `json:"nodeStatusMaxImages,omitempty"`
	RegisterNode              *bool           `json:"registerNode,omitempty"`
	RegisterWithTaints        []v1.Taint      `json:"registerWithTaints,omitempty"`
	ProviderID                string          `json:"providerID,omitempty"`
	MaxPods                   int64           `json:"maxPods,omitempty"`
	PodsPerCore               int32           `json:"podsPerCore,omitempty"`
	PodCIDR                   string          `json:"podCIDR,omitempty"`
	EnableControllerAttach    *bool           `json:"enableControllerAttachDetach,omitempty"`
	RunOnce                   bool            `json:"runOnce,omitempty"`
	MaxOpenFiles              int64           `json:"maxOpenFiles,omitempty"`
	ProtectKernelDefaults     bool            `json:"protectKernelDefaults,omitempty"`
	FailSwapOn                *bool           `json:"failSwapOn,omitempty"`
	FailCgroupV1              *bool           `json:"failCgroupV1,omitempty"`
	MakeIPTablesUtilChains    *bool           `json:"makeIPTablesUtilChains,omitempty"`
	IPTablesMasqueradeBit     *int32          `json:"iptablesMasqueradeBit,omitempty"`
	IPTablesDropBit           *int32          `json:"iptablesDropBit,omitempty"`
	HairpinMode               string          `json:"hairpinMode,omitempty"`
	ShutdownGracePeriod       metav1.Duration `json:"shutdownGracePeriod,omitempty"`
	ShutdownGraceCriticalPods metav1.Duration `json:"shutdownGracePeriodCriticalPods,omitempty"`
	ShutdownGraceByPriority   []ShutdownGrace `json:"shutdownGracePeriodByPodPriority,omitempty"`

	// The container runtime, images and logs.
	ContainerRuntimeEndpoint string           `json:"containerRuntimeEndpoint"`
	ImageServiceEndpoint     string           `json:"imageServiceEndpoint,omitempty"`
	RuntimeRequestTimeout    metav1.Duration  `json:"runtimeRequestTimeout,omitempty"`
	SerializeImagePulls      *bool            `json:"serializeImagePulls,omitempty"`
	MaxParallelImagePulls    *int             `json:"maxParallelImagePulls,omitempty"`
	ImageMinimumGCAge        metav1.Duration  `json:"imageMinimumGCAge,omitempty"`
	ImageMaximumGCAge        metav1.Duration  `json:"imageMaximumGCAge,omitempty"`
	ImageGCHighThreshold     *int32           `json:"imageGCHighThresholdPercent,omitempty"`
	ImageGCLowThreshold      *int32           `json:"imageGCLowThresholdPercent,omitempty"`
	ContainerLogMaxSize      string           `json:"containerLogMaxSize,omitempty"`
	ContainerLogMaxFiles     *int             `json:"containerLogMaxFiles,omitempty"`
	ContainerLogMaxWorkers   *int32           `json:"containerLogMaxWorkers,omitempty"`
	ContainerLogInterval     *metav1.Duration `json:"containerLogMonitorInterval,omitempty"`

	// Whether a pod may use an image of the node that was pulled with credentials which it does not have.
	ImagePullCredentialsVerificationPolicy string   `json:"imagePullCredentialsVerificationPolicy,omitempty"`
	PreloadedImagesVerificationAllowlist   []string `json:"preloadedImagesVerificationAllowlist,omitempty"`

	// Pods.
	ResolverConfig             *string           `json:"resolvConf,omitempty"`
	CrashLoopBackOff           CrashLoopBackOff  `json:"crashLoopBackOff,omitempty"`
	SeccompDefault             *bool             `json:"seccompDefault,omitempty"`
	AllowedUnsafeSysctls       []string          `json:"allowedUnsafeSysctls,omitempty"`
	DefaultPodSysctls          map[string]string `json:"defaultPodSysctls,omitempty"`
	UserNamespaces             *UserNamespaces   `json:"userNamespaces,omitempty"`
	VolumePluginDir            string            `json:"volumePluginDir,omitempty"`
	VolumeStatsAggPeriod       metav1.Duration   `json:"volumeStatsAggPeriod,omitempty"`
	ConfigMapAndSecretStrategy string            `json:"configMapAndSecretChangeDetectionStrategy,omitempty"`

	// Control groups and the node's resources.
	CgroupRoot                    string              `json:"cgroupRoot,omitempty"`
	CgroupsPerQOS                 *bool               `json:"cgroupsPerQOS,omitempty"`
	CgroupDriver                  string              `json:"cgroupDriver,omitempty"`
	KubeletCgroups                string              `json:"kubeletCgroups,omitempty"`
	SystemCgroups                 string              `json:"systemCgroups,omitempty"`
	PodPidsLimit                  *int64              `json:"podPidsLimit,omitempty"`
	CPUCFSQuota                   *bool               `json:"cpuCFSQuota,omitempty"`
	CPUCFSQuotaPeriod             *metav1.Duration    `json:"cpuCFSQuotaPeriod,omitempty"`
	SingleProcessOOMKill          *bool               `json:"singleProcessOOMKill,omitempty"`
	QOSReserved                   map[string]string   `json:"qosReserved,omitempty"`
	MemorySwap                    MemorySwap          `json:"memorySwap,omitempty"`
	MemoryThrottlingFactor        *float64            `json:"memoryThrottlingFactor,omitempty"`
	MemoryReservationPolicy       string              `json:"memoryReservationPolicy,omitempty"`
	SystemReserved                map[string]string   `json:"systemReserved,omitempty"`
	KubeReserved                  map[string]string   `json:"kubeReserved,omitempty"`
	ReservedSystemCPUs            string              `json:"reservedSystemCPUs,omitempty"`
	ReservedMemory                []MemoryReservation `json:"reservedMemory,omitempty"`
	SystemReservedCgroup          string              `json:"systemReservedCgroup,omitempty"`
	KubeReservedCgroup            string              `json:"kubeReservedCgroup,omitempty"`
	EnforceNodeAllocatable        []string            `json:"enforceNodeAllocatable,omitempty"`
	LocalStorageCapacityIsolation *bool               `json:"localStorageCapacityIsolation,omitempty"`
	CPUManagerPolicy              string              `json:"cpuManagerPolicy,omitempty"`
	CPUManagerPolicyOptions       map[string]string   `json:"cpuManagerPolicyOptions,omitempty"`
	CPUManagerReconcilePeriod     metav1.Duration     `json:"cpuManagerReconcilePeriod,omitempty"`
	MemoryManagerPolicy           string              `json:"memoryManagerPolicy,omitempty"`
	TopologyManagerPolicy         string              `json:"topologyManagerPolicy,omitempty"`
	TopologyManagerScope          string              `json:"topologyManagerScope,omitempty"`
	TopologyManagerPolicyOptions  map[string]string   `json:"topologyManagerPolicyOptions,omitempty"`

	// Pressure.
	EvictionHard             map[string]string `json:"evictionHard,omitempty"`
	EvictionSoft             map[string]string `json:"evictionSoft,omitempty"`
	EvictionSoftGracePeriod  map[string]string `json:"evictionSoftGracePeriod,omitempty"`
	EvictionMinimumReclaim   map[string]string `json:"evictionMinimumReclaim,omitempty"`
	EvictionTransitionPeriod metav1.Duration   `json:"evictionPressureTransitionPeriod,omitempty"`
	EvictionMaxPodGrace      int32             `json:"evictionMaxPodGracePeriod,omitempty"`
	MergeDefaultEviction     *bool             `json:"mergeDefaultEvictionSettings,omitempty"`
	KernelMemcgNotification  bool              `json:"kernelMemcgNotification,omitempty"`
}

// Authentication is who may speak to the agent's API.
type Authentication struct {
	X509 struct {
		ClientCAFile string `json:"clientCAFile,omitempty"`
	} `json:"x509"`
	Webhook struct {
		Enabled  *bool           `json:"enabled,omitempty"`
		CacheTTL metav1.Duration `json:"cacheTTL,omitempty"`
	} `json:"webhook"`
	Anonymous struct {
		Enabled *bool `json:"enabled,omitempty"`
	} `json:"anonymous"`
}

// Authorization is how it is decided what they may do.
type Authorization struct {
	Mode    string `json:"mode,omitempty"` // Webhook or AlwaysAllow
	Webhook struct {
		CacheAuthorizedTTL   metav1.Duration `json:"cacheAuthorizedTTL,omitempty"`
		CacheUnauthorizedTTL metav1.Duration `json:"cacheUnauthorizedTTL,omitempty"`
	} `json:"webhook"`
}

// CrashLoopBackOff bounds the back-off of restarts.
type CrashLoopBackOff struct {
	MaxContainerRestartPeriod *metav1.Duration `json:"maxContainerRestartPeriod,omitempty"`
}

// UserNamespaces is how many IDs the user namespace of a pod has.
type UserNamespaces struct {
	IDsPerPod *int64 `json:"idsPerPod,omitempty"`
}

// MemorySwap is whether pods may swap.
type MemorySwap struct {
	SwapBehavior string `json:"swapBehavior,omitempty"`
}

// MemoryReservation is memory of one NUMA node that pods do not get.
type MemoryReservation struct {
	NumaNode int32           `json:"numaNode"`
	Limits   v1.ResourceList `json:"limits"`
}

// ShutdownGrace is the grace of pods of a priority when the node shuts down.
type ShutdownGrace struct {
	Priority                   int32 `json:"priority"`
	ShutdownGracePeriodSeconds int64 `json:"shutdownGracePeriodSeconds"`
}

// Logging is LoggingConfiguration: the agent has its own flags, --log-level and --log-format.
type Logging struct {
	Format         string          `json:"format,omitempty"`
	FlushFrequency json.RawMessage `json:"flushFrequency,omitempty"` // 5s, or a number of nanoseconds
	Verbosity      uint32          `json:"verbosity"`
	VModule        []VModule       `json:"vmodule,omitempty"`
	Options        LogOptions      `json:"options,omitempty"`
}

// VModule is the verbosity of some source files.
type VModule struct {
	FilePattern string `json:"filePattern"`
	Verbosity   uint32 `json:"verbosity"`
}

// LogOptions are those of the formats.
type LogOptions struct {
	Text LogOutput `json:"text,omitempty"`
	JSON LogOutput `json:"json,omitempty"`
}

// LogOutput is where lines of a format go.
type LogOutput struct {
	SplitStream    bool              `json:"splitStream,omitempty"`
	InfoBufferSize resource.Quantity `json:"infoBufferSize,omitempty"`
}

// DefaultTracingEndpoint is where a collector on the node listens.
const DefaultTracingEndpoint = "localhost:4317"

// Tracing is TracingConfiguration.
type Tracing struct {
	Endpoint               *string `json:"endpoint,omitempty"`
	SamplingRatePerMillion *int32  `json:"samplingRatePerMillion,omitempty"`
}

// Field is a pointer to the field at a path of JSON names, e.g. authentication.anonymous.enabled.
func (k *Configuration) Field(path string) (any, error) {
	v := reflect.ValueOf(k).Elem()
	for name := range strings.SplitSeq(path, ".") {
		next, ok := member(v, name)
		if !ok {
			return nil, fmt.Errorf("KubeletConfiguration has no field %s", path)
		}
		v = next
	}
	return v.Addr().Interface(), nil
}

// member is the field of a struct that has a name in JSON.
func member(v reflect.Value, name string) (reflect.Value, bool) {
	if v.Kind() != reflect.Struct {
		return reflect.Value{}, false
	}
	for i := range v.NumField() {
		if jsonName(v.Type().Field(i)) == name {
			return v.Field(i), true
		}
	}
	return reflect.Value{}, false
}

func jsonName(f reflect.StructField) string {
	name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
	return name
}
