package container

import (
	"strings"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/trivet-node/trivet/cri/account"
	"github.com/trivet-node/trivet/cri/event"
	"github.com/trivet-node/trivet/cri/image"
	"github.com/trivet-node/trivet/cri/life"
)

// Record is a container as it is recorded. Copies are handed out; they are never changed.
type Record struct {
	ID, Sandbox string
	State       life.State

	// Complete is true once the creation has finished; a container that is not complete is undone at the
	// next start.
	Complete bool `json:"Made"`

	// Discarded is true once the removal has begun of a container that was never started.
	Discarded bool

	// Refused says why the OCI runtime did not make the container, so that its start fails; empty if it did.
	Refused string

	// Raw is the ContainerConfig that the client sent, encoded.
	Raw []byte

	ImageID string

	// ImageRef is the image's name with the digest of its manifest; empty if it has none. ImageName is as it
	// was asked for.
	ImageRef, ImageName string

	LogPath  string
	Created  time.Time
	Started  time.Time
	Finished time.Time

	// Pid is the process ID of its first process.
	Pid int

	// Code, Reason and Message say how it ended.
	Code            int
	Reason, Message string

	User account.User

	// Resources are those that were updated; nil as long as they are those of the configuration.
	Resources *runtimeapi.LinuxContainerResources

	// Change is an update of them that has begun and not ended; nil if there is none.
	Change *runtimeapi.LinuxContainerResources `json:",omitempty"`

	// ImageMounts are the IDs under which the images that it mounts are mounted.
	ImageMounts []string `json:"Volumes"`

	// MountedImages are the IDs of these images, by their path in the container.
	MountedImages map[string]string `json:"VolumeIDs"`

	// StopSignal is kept here, as the image may be removed while the container runs; 0 in the records of
	// earlier versions.
	StopSignal unix.Signal

	config *runtimeapi.ContainerConfig
}

// decode completes a record that was read from its file.
func (r *Record) decode() error {
	r.config = &runtimeapi.ContainerConfig{}
	return proto.Unmarshal(r.Raw, r.config)
}

// ContainerConfig returns what the client asked for. It must not be changed.
func (r Record) ContainerConfig() *runtimeapi.ContainerConfig { return r.config }

// Image returns the container's image for its status: named as it was asked for.
func (r Record) Image() *runtimeapi.ImageSpec {
	requested := r.config.GetImage()
	spec := &runtimeapi.ImageSpec{
		Image:              r.ImageName,
		Annotations:        requested.GetAnnotations(),
		UserSpecifiedImage: requested.GetUserSpecifiedImage(),
		RuntimeHandler:     requested.GetRuntimeHandler(),
	}

	// The records of earlier versions have no name.
	if spec.Image == "" {
		spec.Image = requested.GetImage()
	}

	return spec
}

// setImage notes the image that the container runs, and what it is called now: its tag may move and it may be
// removed while the container runs.
func (r *Record) setImage(img image.Image) {
	requested := r.config.GetImage()
	name := requested.GetUserSpecifiedImage()
	if name == "" {
		name = requested.GetImage()
	}

	r.ImageID = img.ID
	r.ImageRef = img.Reference(name)
	r.ImageName = name

	// An ID is not a name: the image is shown by one that it has.
	if strings.HasPrefix(img.ID, "sha256:"+strings.TrimPrefix(name, "sha256:")) {
		r.ImageName = r.ImageRef
		if len(img.Tags) > 0 {
			r.ImageName = img.Tags[0]
		}
	}
}

// options returns the container's namespace options.
func (r Record) options() *runtimeapi.NamespaceOption {
	return r.config.GetLinux().GetSecurityContext().GetNamespaceOptions()
}

func (r Record) life() life.Container {
	return life.Container{
		State:     r.State,
		Complete:  r.Complete,
		Discarded: r.Discarded,
		Refused:   r.Refused != "",
	}
}

// start notes that the program was let run just now.
func (r *Record) start() bool {
	r.State, r.Started = life.Started(r.State, r.Finished, time.Now())
	return true
}

// end notes how the container ended.
func (r *Record) end(e life.Ending) {
	r.State = life.Exited
	r.Finished = e.At
	r.Code = e.Code
	r.Reason = e.Reason
	r.Message = e.Message
}

// changed returns the event of a change of a record, if clients can see the change. before is nil for a new
// record, after is nil for one that is gone.
func changed(before, after *Record, now time.Time) (event.Event, bool) {
	was, is := visible(before), visible(after)
	switch {
	case is == nil && was == nil:
		return event.Event{}, false
	case is == nil:
		return was.event(event.Deleted, now), true
	case is.State == life.Exited && (was == nil || was.State != life.Exited):
		return is.event(event.Stopped, is.Finished), true
	case was == nil:
		return is.event(event.Created, is.Created), true
	case was.Started.IsZero() && !is.Started.IsZero():
		return is.event(event.Started, is.Started), true
	}

	return event.Event{}, false
}

// visible returns nil for a record that clients do not see.
func visible(r *Record) *Record {
	if r == nil || !r.Complete {
		return nil
	}
	return r
}

func (r *Record) event(kind event.Type, at time.Time) event.Event {
	return event.Event{
		ID:      r.ID,
		Sandbox: r.Sandbox,
		Type:    kind,
		At:      at,
	}
}
