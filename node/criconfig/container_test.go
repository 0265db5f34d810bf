package criconfig

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/trivet-node/trivet/node/podenv"
	"github.com/trivet-node/trivet/node/runtime"
)

func TestMountsAndDevicesAreThoseOfCRI(t *testing.T) {
	gotMounts := mounts([]Mount{
		{ContainerPath: "/data", HostPath: "/d", Propagation: v1.MountPropagationBidirectional},
		{ContainerPath: "/cfg", HostPath: "/c", ReadOnly: true, RecursiveReadOnly: true},
		{ContainerPath: "/host", HostPath: "/", Propagation: v1.MountPropagationHostToContainer},
		{ContainerPath: "/model", ReadOnly: true, ImageID: "sha256:2", Image: "model", ImageSubPath: "v1"},
	})

	wantMounts := []*cri.Mount{
		{ContainerPath: "/data", HostPath: "/d", Propagation: cri.MountPropagation_PROPAGATION_BIDIRECTIONAL},
		{ContainerPath: "/cfg", HostPath: "/c", Readonly: true, RecursiveReadOnly: true},
		{
			ContainerPath: "/host",
			HostPath:      "/",
			Propagation:   cri.MountPropagation_PROPAGATION_HOST_TO_CONTAINER,
		},
		{
			ContainerPath: "/model",
			Readonly:      true,
			Image:         &cri.ImageSpec{Image: "sha256:2", UserSpecifiedImage: "model"},
			ImageSubPath:  "v1",
		},
	}
	if diff := cmp.Diff(wantMounts, gotMounts, protocmp.Transform()); diff != "" {
		t.Errorf("mounts: %s", diff)
	}

	gotDevices := devices([]Device{
		{ContainerPath: "/dev/a", HostPath: "/dev/loop0"},
		{ContainerPath: "/dev/b", HostPath: "/dev/loop1", ReadOnly: true},
	})

	wantDevices := []*cri.Device{
		{ContainerPath: "/dev/a", HostPath: "/dev/loop0", Permissions: "mrw"},
		{ContainerPath: "/dev/b", HostPath: "/dev/loop1", Permissions: "r"},
	}
	if diff := cmp.Diff(wantDevices, gotDevices, protocmp.Transform()); diff != "" {
		t.Errorf("devices: %s", diff)
	}
}

func TestContainerHasWhatItIsGiven(t *testing.T) {
	p := podOf(nil)
	got, err := CreateContainer(node, p, Container{
		Spec:     &p.Spec.Containers[0],
		Attempt:  3,
		ImageRef: "sha256:1",
		Command:  []string{"run"},
		Args:     []string{"fast"},
		Env:      []podenv.Variable{{Name: "A", Value: "1"}},
		Mounts:   []Mount{{ContainerPath: "/data", HostPath: "/d"}},
		Devices:  []Device{{ContainerPath: "/dev/a", HostPath: "/dev/loop0"}},
	})
	if err != nil {
		t.Fatal(err)
	}

	want := &cri.ContainerConfig{
		Metadata: &cri.ContainerMetadata{Name: "c", Attempt: 3},
		Image:    &cri.ImageSpec{Image: "sha256:1"},
		Command:  []string{"run"},
		Args:     []string{"fast"},
		Envs:     []*cri.KeyValue{{Key: "A", Value: []byte("1")}},
		LogPath:  "c/3.log",
		Mounts:   []*cri.Mount{{ContainerPath: "/data", HostPath: "/d"}},
		Devices:  []*cri.Device{{ContainerPath: "/dev/a", HostPath: "/dev/loop0", Permissions: "mrw"}},
		Labels: map[string]string{
			runtime.LabelPodName:       "web-0",
			runtime.LabelPodNamespace:  "shop",
			runtime.LabelPodUID:        "u",
			runtime.LabelContainerName: "c",
		},
	}

	ignore := protocmp.IgnoreFields(&cri.ContainerConfig{}, "annotations", "linux")
	if diff := cmp.Diff(want, got, protocmp.Transform(), ignore); diff != "" {
		t.Error(diff)
	}
}

func TestAnnotationsAreForThoseWhoFindNoPodInTheAPI(t *testing.T) {
	p := podOf(func(s *v1.PodSpec) {
		s.TerminationGracePeriodSeconds = new(int64(12))
		c := &s.Containers[0]
		c.TerminationMessagePolicy = v1.TerminationMessageFallbackToLogsOnError
		c.Ports = []v1.ContainerPort{{Name: "web", ContainerPort: 80}}
		c.Lifecycle = &v1.Lifecycle{PreStop: &v1.LifecycleHandler{
			HTTPGet: &v1.HTTPGetAction{Path: "/quit", Port: intstr.FromString("web")},
		}}
	})

	p.DeletionGracePeriodSeconds = new(int64(5))
	got, err := containerAnnotations(p, &p.Spec.Containers[0], 2)
	if err != nil {
		t.Fatal(err)
	}

	want := map[string]string{
		runtime.AnnotationHash:          got[runtime.AnnotationHash],
		runtime.AnnotationRestartCount:  "2",
		runtime.AnnotationMessagePath:   "/dev/termination-log",
		runtime.AnnotationMessagePolicy: "FallbackToLogsOnError",
		runtime.AnnotationDeletionGrace: "5",
		runtime.AnnotationTermGrace:     "12",
		runtime.AnnotationResources:     "cpu=0/0 memory=0/0",
		runtime.AnnotationPreStop:       `{"httpGet":{"path":"/quit","port":"web"}}`,
		runtime.AnnotationPorts:         `[{"name":"web","containerPort":80}]`,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestStopSignals(t *testing.T) {
	for name, c := range map[string]struct {
		signal *v1.Signal
		want   cri.Signal
		bad    bool
	}{
		"the image's": {},
		"its own":     {signal: new(v1.SIGUSR1), want: cri.Signal_SIGNAL_SIGUSR1},
		"unknown":     {signal: new(v1.Signal("SIGNOTHING")), bad: true},
	} {
		got, err := stopSignal(&v1.Container{Lifecycle: &v1.Lifecycle{StopSignal: c.signal}})
		if got != c.want || (err != nil) != c.bad {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
}

func TestTextWithNULBytesIsRefused(t *testing.T) {
	for name, c := range map[string]struct {
		config *runtime.ContainerConfig
		bad    bool
	}{
		"none":     {config: &cri.ContainerConfig{Command: []string{"a"}, Args: []string{"b"}}},
		"command":  {config: &cri.ContainerConfig{Command: []string{"a\x00b"}}, bad: true},
		"argument": {config: &cri.ContainerConfig{Args: []string{"a", "\x00"}}, bad: true},
		"variable": {
			config: &cri.ContainerConfig{Envs: []*cri.KeyValue{{Key: "A", Value: []byte("\x00")}}},
			bad:    true,
		},
	} {
		if err := CheckText(c.config); (err != nil) != c.bad {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestHostPortsAreThoseOfContainersThatRunForLong(t *testing.T) {
	port := func(host int32, protocol v1.Protocol) []v1.ContainerPort {
		return []v1.ContainerPort{{
			ContainerPort: 80,
			HostPort:      host,
			Protocol:      protocol,
			HostIP:        "192.0.2.1",
		}}
	}

	mod := func(s *v1.PodSpec) {
		s.InitContainers = []v1.Container{
			{Name: "init", Ports: port(1, v1.ProtocolTCP)},
			{
				Name:          "sidecar",
				Ports:         port(2, v1.ProtocolSCTP),
				RestartPolicy: new(v1.ContainerRestartPolicyAlways),
			},
		}

		s.Containers = []v1.Container{
			{Name: "app", Ports: port(3, v1.ProtocolUDP)},
			{Name: "inner", Ports: port(0, v1.ProtocolTCP)},
			{Name: "plain", Ports: port(4, "")},
		}
	}

	want := []*cri.PortMapping{
		{Protocol: cri.Protocol_SCTP, ContainerPort: 80, HostPort: 2, HostIp: "192.0.2.1"},
		{Protocol: cri.Protocol_UDP, ContainerPort: 80, HostPort: 3, HostIp: "192.0.2.1"},
		{Protocol: cri.Protocol_TCP, ContainerPort: 80, HostPort: 4, HostIp: "192.0.2.1"},
	}

	got, err := Sandbox(node, podOf(mod), 0, "")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got.PortMappings, protocmp.Transform()); diff != "" {
		t.Error(diff)
	}

	got, err = Sandbox(node, podOf(func(s *v1.PodSpec) {
		mod(s)
		s.HostNetwork = true
	}), 0, "")
	if err != nil || len(got.PortMappings) > 0 {
		t.Errorf("on the host's network: %v, %v", got.PortMappings, err)
	}
}

func TestAppArmorProfiles(t *testing.T) {
	type profile = v1.AppArmorProfile
	for name, c := range map[string]struct {
		field      *profile
		annotation string
		want       *cri.SecurityProfile
		bad        bool
	}{
		"not said": {},
		"field": {
			field: &profile{Type: v1.AppArmorProfileTypeLocalhost, LocalhostProfile: new("p")},
			want:  localhost("p"),
		},
		"field before annotation": {
			field:      &profile{Type: v1.AppArmorProfileTypeUnconfined},
			annotation: "localhost/p",
			want:       unconfined(),
		},
		"default": {
			field: &profile{Type: v1.AppArmorProfileTypeRuntimeDefault},
			want:  runtimeDefault(),
		},
		"annotation":             {annotation: "localhost/p", want: localhost("p")},
		"annotation of default":  {annotation: "runtime/default", want: runtimeDefault()},
		"annotation of none":     {annotation: "unconfined", want: unconfined()},
		"annotation, not valid":  {annotation: "strict", bad: true},
		"field without its name": {field: &profile{Type: v1.AppArmorProfileTypeLocalhost}, bad: true},
	} {
		p := podOf(nil)
		if c.annotation != "" {
			p.Annotations = map[string]string{
				"container.apparmor.security.beta.kubernetes.io/c": c.annotation,
			}
		}

		got, err := apparmor(p, &p.Spec.Containers[0], c.field)
		if (err != nil) != c.bad {
			t.Errorf("%s: %v", name, err)
		}
		if diff := cmp.Diff(c.want, got, protocmp.Transform()); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}
