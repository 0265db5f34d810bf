package sandbox

import (
	"net/netip"
	"time"

	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/trivet-node/trivet/cri/event"
	"github.com/trivet-node/trivet/cri/life"
)

// Record is a sandbox as it is recorded. Copies are handed out; they are never changed.
type Record struct {
	ID      string
	State   life.SandboxState
	Handler string
	Created time.Time
	Stopped time.Time
	IPs     []netip.Addr

	// Raw is the PodSandboxConfig that the client sent, encoded.
	Raw []byte

	// InitPid is the process ID of the init of a shared PID namespace; 0 if there is none.
	InitPid int `json:"Pause"`

	// Network is true while the sandbox may be joined to a network, so that it has to be released from it.
	Network bool

	config *runtimeapi.PodSandboxConfig
}

// decode completes a record that was read from its file.
func (r *Record) decode() error {
	r.config = &runtimeapi.PodSandboxConfig{}
	return proto.Unmarshal(r.Raw, r.config)
}

// PodConfig returns what the client asked for, with the resources that it was given last. It must not be
// changed.
func (r Record) PodConfig() *runtimeapi.PodSandboxConfig { return r.config }

// update changes the resources of the configuration, and reports whether it did.
func (r *Record) update(overhead, resources *runtimeapi.LinuxContainerResources) bool {
	config := proto.CloneOf(r.config)
	if config.Linux == nil {
		config.Linux = &runtimeapi.LinuxPodSandboxConfig{}
	}
	if overhead != nil {
		config.Linux.Overhead = overhead
	}
	if resources != nil {
		config.Linux.Resources = resources
	}

	raw, err := proto.Marshal(config)
	if err != nil || proto.Equal(config, r.config) {
		return false
	}

	r.config = config
	r.Raw = raw
	return true
}

// CgroupParent returns the cgroup parent that the client names; it may be empty.
func (r Record) CgroupParent() string { return r.config.GetLinux().GetCgroupParent() }

// Options returns the pod's namespace options.
func (r Record) Options() *runtimeapi.NamespaceOption {
	return r.config.GetLinux().GetSecurityContext().GetNamespaceOptions()
}

// Which namespaces the pod has of its own, and whether its containers share a PID namespace.
func (r Record) ownsNetwork() bool { return r.Options().GetNetwork() != runtimeapi.NamespaceMode_NODE }
func (r Record) ownsIPC() bool     { return r.Options().GetIpc() != runtimeapi.NamespaceMode_NODE }
func (r Record) sharesPID() bool   { return r.Options().GetPid() == runtimeapi.NamespaceMode_POD }

// changed returns the event of a change of a record, if clients can see the change. before is nil for a new
// record, after is nil for one that is gone.
func changed(before, after *Record, now time.Time) (event.Event, bool) {
	was, is := seen(before), seen(after)
	if was == is {
		return event.Event{}, false
	}

	subject := after
	if after == nil {
		subject = before
	}

	e := event.Event{ID: subject.ID, Sandbox: subject.ID, At: now}
	switch is {
	case life.Ready:
		e.Type = event.Started
	case life.Stopped:
		e.Type = event.Stopped
	default:
		e.Type = event.Deleted
	}

	return e, true
}

// seen returns the state that clients see; "" of a sandbox that they do not see.
func seen(r *Record) life.SandboxState {
	if r == nil || r.State == life.Making {
		return ""
	}
	return r.State
}
