package container

import (
	"encoding/json"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/trivet-node/trivet/cri/event"
	"github.com/trivet-node/trivet/cri/image"
	"github.com/trivet-node/trivet/cri/life"
)

func TestEventsAreOfChangesThatClientsSee(t *testing.T) {
	at := time.Unix(1, 0)
	var never time.Time
	half := &Record{ID: "c"}
	created := visibleRecord(life.Created, never, never)
	discarded := visibleRecord(life.Created, never, never)
	discarded.Discarded = true
	running := visibleRecord(life.Running, at, never)
	exited := visibleRecord(life.Exited, at, at)
	neverRan := visibleRecord(life.Exited, never, at)

	const none = event.Type(-1)
	for _, c := range []struct {
		name          string
		before, after *Record
		want          event.Type
	}{
		{"the record is written", nil, half, none},
		{"undone", half, nil, none},
		{"created", half, created, event.Created},
		{"its init ended at once", half, neverRan, event.Stopped},
		{"started", created, running, event.Started},
		{"updated", running, running, none},
		{"ended", running, exited, event.Stopped},
		{"did not start", created, neverRan, event.Stopped},
		{"ended before its start was recorded", neverRan, exited, event.Started},
		{"its removal begins", created, discarded, none},
		{"removed before it was started", discarded, nil, event.Deleted},
		{"removed", exited, nil, event.Deleted},
	} {
		e, ok := changed(c.before, c.after, at)
		if !ok {
			e.Type = none
		}
		if e.Type != c.want || ok && (e.ID != "c" || e.At != at) {
			t.Errorf("%s: %+v, want type %d", c.name, e, c.want)
		}
	}
}

func visibleRecord(state life.State, started, finished time.Time) *Record {
	return &Record{
		ID:       "c",
		State:    state,
		Complete: true,
		Created:  time.Unix(1, 0),
		Started:  started,
		Finished: finished,
	}
}

// A server must find the containers of the version before it.
func TestRecordOfAnEarlierVersionIsRead(t *testing.T) {
	const text = `{"ID":"c","Sandbox":"s","State":1,"Made":true,"Discarded":false,"Refused":"","Raw":"",
		"ImageID":"sha256:1","Created":"2026-11-28T12:00:00Z","Pid":42,"Code":0,
		"User":{"uid":7,"gid":8,"Home":"/"},"Resources":{"cpu_shares":100},
		"Volumes":["c-volume0"],"VolumeIDs":{"/data":"sha256:2"},"StopSignal":3}`

	var r Record
	if err := json.Unmarshal([]byte(text), &r); err != nil {
		t.Fatal(err)
	}

	if r.State != life.Running || !r.Complete || r.Pid != 42 || r.User.UID != 7 ||
		r.Resources.CpuShares != 100 || r.StopSignal != unix.SIGQUIT {
		t.Errorf("%+v", r)
	}

	if len(r.ImageMounts) != 1 || r.ImageMounts[0] != "c-volume0" || r.MountedImages["/data"] != "sha256:2" {
		t.Errorf("image mounts %v of %v", r.ImageMounts, r.MountedImages)
	}
}

// The numbers are on the disk and go to clients.
func TestStatesHaveCRIsNumbers(t *testing.T) {
	for state, number := range map[life.State]runtimeapi.ContainerState{
		life.Created: runtimeapi.ContainerState_CONTAINER_CREATED,
		life.Running: runtimeapi.ContainerState_CONTAINER_RUNNING,
		life.Exited:  runtimeapi.ContainerState_CONTAINER_EXITED,
	} {
		if int(state) != int(number) {
			t.Errorf("%s is %d, CRI's is %d", state, state, number)
		}
	}
}

type images struct{ image.Image }

func (i images) Get(string) (image.Image, error) { return i.Image, nil }

// Signal 0 would end nothing, and the container would be killed when its grace period is over.
func TestContainerOfAnEarlierVersionIsAskedToEnd(t *testing.T) {
	ofImage := image.Image{}
	ofImage.Config.Config.StopSignal = "SIGHUP"
	asks := &runtimeapi.ContainerConfig{StopSignal: runtimeapi.Signal_SIGNAL_SIGUSR1}
	for _, c := range []struct {
		name   string
		record Record
		image  image.Image
		want   unix.Signal
	}{
		{"the pod's", Record{config: asks}, ofImage, unix.SIGUSR1},
		{"the image's", Record{config: &runtimeapi.ContainerConfig{}}, ofImage, unix.SIGHUP},
		{"neither", Record{config: &runtimeapi.ContainerConfig{}}, image.Image{}, unix.SIGTERM},
		{"recorded", Record{StopSignal: unix.SIGQUIT, config: asks}, ofImage, unix.SIGQUIT},
	} {
		if got := c.record.stopSignal(images{c.image}); got != c.want {
			t.Errorf("%s: %v is sent, want %v", c.name, got, c.want)
		}
	}
}
