package localstorage_test

import (
	"testing"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/trivet-node/trivet/node/localstorage"
)

// newPod returns a pod with a container for each limit of ephemeral-storage; "" is none.
func newPod(limits ...string) *v1.Pod {
	pod := &v1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web", UID: "u1"}}
	for i, limit := range limits {
		c := v1.Container{Name: string(rune('a' + i))}
		if limit != "" {
			c.Resources.Limits = v1.ResourceList{v1.ResourceEphemeralStorage: resource.MustParse(limit)}
		}
		pod.Spec.Containers = append(pod.Spec.Containers, c)
	}
	return pod
}

// withEmptyDir adds an emptyDir volume to a pod; "" is no limit.
func withEmptyDir(pod *v1.Pod, name, limit string, medium v1.StorageMedium) *v1.Pod {
	source := &v1.EmptyDirVolumeSource{Medium: medium}
	if limit != "" {
		source.SizeLimit = new(resource.MustParse(limit))
	}
	volume := v1.Volume{Name: name, VolumeSource: v1.VolumeSource{EmptyDir: source}}
	pod.Spec.Volumes = append(pod.Spec.Volumes, volume)
	return pod
}

// withInit adds an init container with a limit.
func withInit(pod *v1.Pod, name, limit string, sidecar bool) *v1.Pod {
	c := newPod(limit).Spec.Containers[0]
	c.Name = name
	if sidecar {
		c.RestartPolicy = new(v1.ContainerRestartPolicyAlways)
	}
	pod.Spec.InitContainers = append(pod.Spec.InitContainers, c)
	return pod
}

const mib = 1 << 20

func disk(bytes uint64) localstorage.Volume {
	return localstorage.Volume{Usage: localstorage.Usage{Bytes: bytes}}
}

func wrote(layer, logs uint64) localstorage.Container {
	return localstorage.Container{
		Layer: localstorage.Usage{Bytes: layer},
		Logs:  localstorage.Usage{Bytes: logs},
	}
}

type containers = map[string]localstorage.Container

type volumes = map[string]localstorage.Volume

// The messages are kubelet's, whose trailing blanks are API behaviour as well.
func TestFirstLimitThatIsExceededIsSaidInKubeletsWords(t *testing.T) {
	cache := func(limit string) *v1.Pod { return withEmptyDir(newPod(""), "cache", limit, "") }
	cases := map[string]struct {
		pod       *v1.Pod
		use       localstorage.Pod
		dedicated bool
		signal    string
		message   string
	}{
		"volume is as large as it may be": {
			pod: cache("1Mi"), use: localstorage.Pod{Volumes: volumes{"cache": disk(mib)}},
		},
		"volume is larger": {
			pod: cache("1Mi"), use: localstorage.Pod{Volumes: volumes{"cache": disk(mib + 1)}},
			signal:  localstorage.SignalEmptyDir,
			message: `Usage of EmptyDir volume "cache" exceeds the limit "1Mi". `,
		},
		"volume without a limit": {
			pod: cache(""), use: localstorage.Pod{Volumes: volumes{"cache": disk(1 << 40)}},
		},
		"volume with the limit 0": {
			pod: cache("0"), use: localstorage.Pod{Volumes: volumes{"cache": disk(1 << 40)}},
		},
		"volume before the pod and the container": {
			pod: withEmptyDir(newPod("1Mi"), "cache", "1k", ""),
			use: localstorage.Pod{
				Volumes:    volumes{"cache": disk(1001)},
				Containers: containers{"a": wrote(2*mib, 0)},
			},
			signal:  localstorage.SignalEmptyDir,
			message: `Usage of EmptyDir volume "cache" exceeds the limit "1k". `,
		},
		"pod before the container": {
			pod: newPod("1Mi"), use: localstorage.Pod{Containers: containers{"a": wrote(mib, 1)}},
			signal:  localstorage.SignalPod,
			message: "Pod ephemeral local storage usage exceeds the total limit of containers 1Mi. ",
		},
		"pod with a container that has no limit": {
			pod: newPod("1Mi", ""), use: localstorage.Pod{Containers: containers{"b": wrote(mib+1, 0)}},
			signal:  localstorage.SignalPod,
			message: "Pod ephemeral local storage usage exceeds the total limit of containers 1Mi. ",
		},
		"pod by its volumes and the rest": {
			pod: withEmptyDir(newPod("1Mi"), "cache", "", ""),
			use: localstorage.Pod{
				Volumes: volumes{"cache": disk(mib)},
				Rest:    localstorage.Usage{Bytes: 4096},
			},
			signal:  localstorage.SignalPod,
			message: "Pod ephemeral local storage usage exceeds the total limit of containers 1Mi. ",
		},
		"memory is not the pod's disk": {
			pod: withEmptyDir(newPod("1Mi"), "cache", "", v1.StorageMediumMemory),
			use: localstorage.Pod{
				Volumes: volumes{"cache": {Usage: localstorage.Usage{Bytes: 4 * mib}, Memory: true}},
			},
		},
		"volume in memory": {
			pod: withEmptyDir(newPod(""), "cache", "1Mi", v1.StorageMediumMemory),
			use: localstorage.Pod{
				Volumes: volumes{"cache": {Usage: localstorage.Usage{Bytes: 4 * mib}, Memory: true}},
			},
			signal:  localstorage.SignalEmptyDir,
			message: `Usage of EmptyDir volume "cache" exceeds the limit "1Mi". `,
		},
		"container with a share of the pod's": {
			pod: newPod("1Mi", "3Mi"), use: localstorage.Pod{Containers: containers{"a": wrote(mib, 4096)}},
			signal:  localstorage.SignalContainer,
			message: `Container a exceeded its local ephemeral storage limit "1Mi". `,
		},
		"container whose layer is elsewhere": {
			pod: newPod("1Mi", "3Mi"), use: localstorage.Pod{Containers: containers{"a": wrote(2*mib, 0)}},
			dedicated: true,
		},
		"logs of a container whose layer is elsewhere": {
			pod: newPod("1Mi", "3Mi"), use: localstorage.Pod{Containers: containers{"a": wrote(0, mib+1)}},
			dedicated: true,
			signal:    localstorage.SignalContainer,
			message:   `Container a exceeded its local ephemeral storage limit "1Mi". `,
		},
		"sidecar": {
			pod: withInit(newPod("4Mi"), "proxy", "1Mi", true),
			use: localstorage.Pod{Containers: containers{"proxy": wrote(2*mib, 0)}},

			signal:  localstorage.SignalContainer,
			message: `Container proxy exceeded its local ephemeral storage limit "1Mi". `,
		},
		"init container": {
			pod: withInit(newPod("4Mi"), "setup", "1Mi", false),
			use: localstorage.Pod{Containers: containers{"setup": wrote(2*mib, 0)}},
		},
	}

	for name, c := range cases {
		got, found := localstorage.Check(c.pod, c.use, c.dedicated)
		want := localstorage.Excess{Signal: c.signal, Message: c.message}
		if got != want || found != (c.message != "") {
			t.Errorf("%s: %+v, want %+v", name, got, want)
		}
	}
}

func TestPodsWithoutLimitsAreNotMeasured(t *testing.T) {
	for name, c := range map[string]struct {
		pod  *v1.Pod
		want bool
	}{
		"nothing":            {newPod(""), false},
		"volume without one": {withEmptyDir(newPod(""), "a", "", ""), false},
		"volume":             {withEmptyDir(newPod(""), "a", "1Gi", ""), true},
		"container":          {newPod("", "1Gi"), true},
		"init container":     {withInit(newPod(""), "setup", "1Gi", false), true},
	} {
		if got := localstorage.Limited(c.pod); got != c.want {
			t.Errorf("%s: %t", name, got)
		}
	}
}
