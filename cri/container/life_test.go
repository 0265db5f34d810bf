package container

import (
	"testing"

	"golang.org/x/sys/unix"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/trivet-node/trivet/cri/image"
)

// Signal 0 would end nothing, and the container would be killed when its grace is over.
func TestContainerOfAnEarlierVersionIsAskedToEnd(t *testing.T) {
	images, err := image.Open(image.Config{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer images.Close()

	c := &Containers{cfg: Config{Images: images}}

	asks := &runtimeapi.ContainerConfig{StopSignal: runtimeapi.Signal_SIGNAL_SIGUSR1}
	for _, x := range []struct {
		record Record
		want   unix.Signal
	}{
		{Record{ImageID: "sha256:gone", config: asks}, unix.SIGUSR1},
		{Record{ImageID: "sha256:gone", config: &runtimeapi.ContainerConfig{}}, unix.SIGTERM},
		{Record{StopSignal: unix.SIGQUIT, config: asks}, unix.SIGQUIT},
	} {
		if got := c.stopSignal(x.record); got != x.want {
			t.Errorf("%v is sent, want %v", got, x.want)
		}
	}
}
