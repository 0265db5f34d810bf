// Package config is the configuration of the node agent: kubelet's flags and KubeletConfiguration v1beta1, so
// that a node's files serve both. Every field and flag of kubelet has a row in a table: it is served, or has
// no effect, or is refused. What has no effect is named in a notice, once; what cannot be valid is an error
// that names the field or flag.
//
// Read parses and checks everything before anything starts. The parts of the agent get plain values: no text
// to parse, and no pointer that may be nil.
package config

import (
	"crypto/tls"
	"fmt"
	"net/http"
	"net/netip"
	"time"

	v1 "k8s.io/api/core/v1"

	"github.com/trivet-node/trivet/node/kubeletconfig"
	"github.com/trivet-node/trivet/node/podspec"
	"github.com/trivet-node/trivet/node/threshold"
)

// Config is everything that the agent needs to know.
type Config struct {
	NodeName string
	RootDir  string // of pods and volumes: /var/lib/kubelet

	RuntimeEndpoint string
	ImageEndpoint   string

	Identity   Identity
	Node       Node
	Resources  Resources
	Eviction   Eviction
	Cgroups    Cgroups
	Containers Containers
	Images     Images
	Logs       Logs
	Static     Static
	Events     Events
	API        API
	Process    Process
	Machine    Machine
	Gates      Gates
	Tracing    Tracing

	// HealthAddress is where /healthz is served; empty: nowhere.
	HealthAddress string

	// Kubelet is the KubeletConfiguration for /configz, with the flags laid over that of the files.
	Kubelet any

	Flags   map[string]string // that were given, for /flagz
	Notices []string          // lines for the log: what was set and has no effect
}

// Identity is how the node connects to the API server.
type Identity struct {
	Kubeconfig string
	Bootstrap  string // kubeconfig with a bootstrap token
	CertDir    string
	Rotate     bool // renew the client certificate before it ends

	// Relist is after how long, at the earliest, what is watched is listed again.
	Relist time.Duration
}

// Node is the Node object.
type Node struct {
	Register      bool
	IPs           []netip.Addr // of --node-ip; without any the agent finds its own
	Labels        map[string]string
	Taints        []v1.Taint
	ProviderID    string
	ExternalCloud bool  // a cloud controller says what the node is
	Port          int32 // of the agent's API

	MaxPods     int64
	PodsPerCore int64 // 0: no limit
	MaxImages   int   // in the status; -1: all

	// UsersPerPod is how many IDs the user namespace of a pod has.
	UsersPerPod uint32

	CheckFrequency  time.Duration // how often the node is looked at
	ReportFrequency time.Duration // of an unchanged status
	LeaseDuration   time.Duration
}

// Resources are what pods may use.
type Resources struct {
	Reserved       v1.ResourceList // cpu, memory, ephemeral-storage and pid that pods cannot have
	EvictionHard   threshold.Set   // what is kept free
	AllAllocatable bool            // EvictionHard is not taken from what is allocatable
	LocalStorage   bool            // limits of emptyDir volumes and ephemeral-storage are enforced
}

// Eviction is when pods are evicted.
type Eviction struct {
	Thresholds   []threshold.Threshold
	MaxPodGrace  int64         // seconds that a pod has at most, of a soft threshold
	PressureHold time.Duration // how long a pressure is shown after it was last seen
}

// Cgroups are the control groups of pods.
type Cgroups struct {
	Driver   string // cgroupfs or systemd; empty: what the runtime says
	Root     string
	PodPIDs  int64 // -1: no limit
	CPUQuota bool  // limits of CPU are enforced

	// Memory is how memory is throttled and kept from being reclaimed on cgroup v2. What is allocatable is
	// not known here.
	Memory podspec.MemoryQoS

	// HoldPods means that all pods together may have no more than is allocatable.
	HoldPods bool
	Daemons  []Daemons
}

// Daemons are the node's own daemons, whose control group is held to what is reserved for them.
type Daemons struct {
	Name     string // "System Reserved" or "Kube Reserved", for messages
	Group    string // systemReservedCgroup or kubeReservedCgroup
	Reserved v1.ResourceList

	// Compressible means that only their share of CPU is set.
	Compressible bool

	// Protected means that the kernel does not take their memory on cgroup v2 (MemoryQoS).
	Protected bool
}

// Containers is what containers are configured with.
type Containers struct {
	ClusterDNS     []string
	ClusterDomain  string
	ResolverConfig string // the node's resolv.conf; empty: pods get nothing of the node's
	SeccompDefault bool
	SingleOOMKill  bool // an OOM kill ends one process, not its control group
	LimitedSwap    bool // burstable pods may swap, where swap is on; else nobody does
	AllowedSysctls []string
	MaxBackoff     time.Duration // between restarts
	Ended          Ended
}

// Ended says which containers that have ended are kept.
type Ended struct {
	MinAge       time.Duration // since they were created
	PerContainer int           // beside the newest; negative: no limit
	Total        int           // negative: no limit
}

// Images is how images are pulled and removed.
type Images struct {
	ParallelPulls int // 0: no limit
	Verification  string
	Allowlist     []string

	// Unused images are removed when so much of their file system is in use, down to the low threshold, but
	// none that is younger than MinAge.
	HighPercent int
	LowPercent  int
	MinAge      time.Duration
	MaxAge      time.Duration // since the last use; 0: no limit
}

// Logs are the logs of containers.
type Logs struct {
	Dir      string
	MaxSize  int64 // bytes of a file before it is rotated
	MaxFiles int
	Workers  int           // rotations at the same time
	Interval time.Duration // of looks at their sizes
}

// Static is where static pods come from; empty fields are no sources.
type Static struct {
	Path      string
	URL       string
	URLHeader http.Header
	Interval  time.Duration // of reads of the URL
}

// Events bounds the events that the agent sends. Zero is no bound.
type Events struct {
	PerSecond int
	Burst     int
}

// API is the agent's API on port 10250.
type API struct {
	Enabled bool
	Address string      // to listen on, with the port
	TLS     *tls.Config // versions, cipher suites and curves; no certificate

	CertFile      string // empty: self-signed, or of the cluster's signer
	KeyFile       string
	ClusterSigner bool // ask the cluster's signer for a certificate

	ClientCAFile string // empty: no client certificates
	Anonymous    bool
	TokenReview  bool
	AlwaysAllow  bool          // everybody who is authenticated may do everything
	TokenTTL     time.Duration // how long an answer of the API server is kept
	AllowTTL     time.Duration
	DenyTTL      time.Duration

	Debugging  bool // exec, logs and the like
	SystemLogs bool
	Profiling  bool
	DebugFlags bool

	StreamIdleTime time.Duration // 0: no limit
}

// Process is what the agent gives its own process.
type Process struct {
	OOMScoreAdj  int
	MaxOpenFiles uint64
}

// Tracing says where spans of pods' starts and ends go. Of the traces that begin here, some per million are
// kept.
type Tracing struct {
	Endpoint          string // host:port of an OTLP receiver (gRPC); empty: no spans are made
	SamplesPerMillion int
}

// Machine is what the start demands of the machine.
type Machine struct {
	NoCgroupV1      bool
	NoSwap          bool
	KernelDefaults  bool // kernel parameters are kubelet's
	NeedsGroupKills bool // singleProcessOOMKill: false, which cgroup v1 cannot do
}

// Gates are the feature gates that the agent serves.
type Gates struct {
	Checkpoint           bool // ContainerCheckpoint
	Statusz              bool // ComponentStatusz
	Flagz                bool // ComponentFlagz
	PodCertificates      bool // PodCertificateRequest
	PodResources         bool // PodLevelResources
	ResizePods           bool // InPlacePodLevelResourcesVerticalScaling
	RestartAllContainers bool // RestartAllContainersOnContainerExits

	// All are kubelet's, with what they are set to.
	All []kubeletconfig.Gate
}

// Read lays the flags over the files and the files over kubelet's defaults, and checks the whole.
func Read(flags *Flags) (Config, error) {
	c := defaults()
	if err := c.load(flags); err != nil {
		return Config{}, err
	}
	if err := flags.apply(&c); err != nil {
		return Config{}, err
	}
	if err := c.complete(); err != nil {
		return Config{}, fmt.Errorf("configuration: %w", err)
	}
	return c.resolve()
}

// Default is the configuration without files and flags.
func Default() (Config, error) { return Read(&Flags{}) }
