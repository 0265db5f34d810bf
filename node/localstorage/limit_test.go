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

// holding is the use of a pod whose volumes take so many bytes.
func holding(volumes map[string]localstorage.Volume) localstorage.Pod {
	return localstorage.Pod{Volumes: volumes}
}

// running is the use of a pod with one container.
func running(name string, c localstorage.Container) localstorage.Pod {
	return localstorage.Pod{Containers: map[string]localstorage.Container{name: c}}
}

// limitCase is a pod, what it takes, and the limit that it exceeds.
type limitCase struct {
	pod  *v1.Pod
	use  localstorage.Pod
	want localstorage.Excess
}

func check(t *testing.T, dedicated bool, cases map[string]limitCase) {
	t.Helper()
	for name, c := range cases {
		got, found := localstorage.Check(c.pod, c.use, dedicated)
		if got != c.want || found != (c.want != localstorage.Excess{}) {
			t.Errorf("%s: %+v, want %+v", name, got, c.want)
		}
	}
}

// The messages are kubelet's, whose trailing blanks are API behaviour as well.
func volumeExceeds(name, limit string) localstorage.Excess {
	return localstorage.Excess{
		Signal:  localstorage.SignalEmptyDir,
		Message: `Usage of EmptyDir volume "` + name + `" exceeds the limit "` + limit + `". `,
	}
}

func podExceeds(limit string) localstorage.Excess {
	return localstorage.Excess{
		Signal:  localstorage.SignalPod,
		Message: "Pod ephemeral local storage usage exceeds the total limit of containers " + limit + ". ",
	}
}

func containerExceeds(name, limit string) localstorage.Excess {
	return localstorage.Excess{
		Signal:  localstorage.SignalContainer,
		Message: "Container " + name + ` exceeded its local ephemeral storage limit "` + limit + `". `,
	}
}

func TestVolumesAreHeldToTheirSizes(t *testing.T) {
	type volumes = map[string]localstorage.Volume
	cache := func(limit string) *v1.Pod { return withEmptyDir(newPod(""), "cache", limit, "") }
	inMemory := withEmptyDir(newPod(""), "cache", "1Mi", v1.StorageMediumMemory)
	both := localstorage.Pod{
		Volumes:    volumes{"cache": disk(1001)},
		Containers: map[string]localstorage.Container{"a": wrote(2*mib, 0)},
	}

	check(t, false, map[string]limitCase{
		"as large as it may be": {cache("1Mi"), holding(volumes{"cache": disk(mib)}), localstorage.Excess{}},
		"larger": {
			cache("1Mi"),
			holding(volumes{"cache": disk(mib + 1)}),
			volumeExceeds("cache", "1Mi"),
		},
		"without a limit": {cache(""), holding(volumes{"cache": disk(1 << 40)}), localstorage.Excess{}},
		"with the limit 0": {
			cache("0"),
			holding(volumes{"cache": disk(1 << 40)}),
			localstorage.Excess{},
		},
		"in memory": {
			inMemory,
			holding(volumes{"cache": disk(mib + 1)}),
			volumeExceeds("cache", "1Mi"),
		},
		"not there yet": {cache("1Mi"), localstorage.Pod{}, localstorage.Excess{}},

		"before the pod": {
			withEmptyDir(newPod("1Mi"), "cache", "1k", ""),
			both,
			volumeExceeds("cache", "1k"),
		},
	})
}

func TestPodsAreHeldToTheLimitsOfTheirContainers(t *testing.T) {
	withCache := func(medium v1.StorageMedium) *v1.Pod {
		return withEmptyDir(
			newPod("1Mi"),
			"cache",
			"",
			medium,
		)
	}

	full := localstorage.Volume{Usage: localstorage.Usage{Bytes: mib}}
	memory := localstorage.Volume{Usage: localstorage.Usage{Bytes: 4 * mib}, Memory: true}
	use := func(v localstorage.Volume) localstorage.Pod {
		return localstorage.Pod{
			Volumes: map[string]localstorage.Volume{"cache": v},
			Rest:    localstorage.Usage{Bytes: 4096},
		}
	}

	check(t, false, map[string]limitCase{
		"by a container":              {newPod("1Mi"), running("a", wrote(mib, 1)), podExceeds("1Mi")},
		"by one that has no limit":    {newPod("1Mi", ""), running("b", wrote(mib+1, 0)), podExceeds("1Mi")},
		"by its volumes and the rest": {withCache(""), use(full), podExceeds("1Mi")},
		"memory is not disk": {
			withCache(v1.StorageMediumMemory),
			use(memory),
			localstorage.Excess{},
		},
		"without a limit": {newPod(""), running("a", wrote(1<<40, 0)), localstorage.Excess{}},
	})

	// The layers count to the pod wherever they are.
	check(t, true, map[string]limitCase{
		"by a layer elsewhere": {newPod("1Mi"), running("a", wrote(mib, 1)), podExceeds("1Mi")},
	})
}

func TestContainersAreHeldToTheirLimits(t *testing.T) {
	two, none := newPod("1Mi", "3Mi"), localstorage.Excess{}
	sidecar := withInit(newPod("4Mi"), "proxy", "1Mi", true)
	setup := withInit(newPod("4Mi"), "setup", "1Mi", false)
	check(t, false, map[string]limitCase{
		"by its layer and logs": {two, running("a", wrote(mib, 4096)), containerExceeds("a", "1Mi")},
		"within its limit":      {two, running("b", wrote(2*mib, 4096)), none},
		"sidecar": {
			sidecar,
			running("proxy", wrote(2*mib, 0)),
			containerExceeds("proxy", "1Mi"),
		},
		"init container": {setup, running("setup", wrote(2*mib, 0)), none},
	})

	check(t, true, map[string]limitCase{
		"by a layer elsewhere": {two, running("a", wrote(2*mib, 0)), none},
		"by its logs":          {two, running("a", wrote(0, mib+1)), containerExceeds("a", "1Mi")},
	})
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
