package manifest

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"

	"github.com/trivet-node/trivet/node/plan"
)

// kubelets is where e2e/controlplane/staticpods had kubelet read the manifests of testdata.
const kubelets = "/tmp/trivet-static-pods"

func manifest(t *testing.T, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// The values are kubelet's own: go run ./staticpods -from ../../node/manifest/testdata, in e2e/controlplane.
func TestNamesAndUIDsAreThoseOfKubelet(t *testing.T) {
	for line := range strings.Lines(string(manifest(t, "uids.txt"))) {
		want := strings.Fields(line)
		from := Origin{Node: "node1", File: filepath.Join(kubelets, want[0])}
		pod, _, err := Pod(manifest(t, want[0]), from)
		if err != nil {
			t.Errorf("%s: %v", want[0], err)
			continue
		}

		if pod.Name != want[1] || string(pod.UID) != want[2] || pod.Annotations[AnnotationHash] != want[2] {
			t.Errorf("%s is %s %s, kubelet has %v", want[0], pod.Name, pod.UID, want[1:])
		}

		// else its container is replaced
		if got := plan.Hash(&pod.Spec.Containers[0]); got != want[3] {
			t.Errorf("%s: container hash %s, kubelet has %s", want[0], got, want[3])
		}
	}
}

// The values are kubelet's, which read the list from this address.
func TestPodsOfAListAreThoseOfKubelet(t *testing.T) {
	pods, _, err := Pods(manifest(t, "list.json"), Origin{Node: "node1", URL: "http://127.0.0.1:47123/pods"})
	if err != nil {
		t.Fatal(err)
	}

	var got []string
	for _, pod := range pods {
		got = append(got, pod.Name+" "+string(pod.UID))
	}

	want := []string{"a-node1 40932b21cee08d6ad46b097d2c41a08c", "b-node1 00351ccd64c11d34cb8d556b96eb3f7a"}
	if !slices.Equal(got, want) {
		t.Errorf("pods %q, want %q", got, want)
	}
}

func TestUIDDependsOnContentAndPlaceOnly(t *testing.T) {
	from := Origin{Node: "node1", File: "/m/etcd.yaml"}
	uid := func(data []byte, from Origin) string {
		t.Helper()
		pod, _, err := Pod(data, from)
		if err != nil {
			t.Fatal(err)
		}

		return string(pod.UID)
	}

	plain := manifest(t, "etcd.yaml")
	first := uid(plain, from)
	if got := uid(manifest(t, "etcd-commented.yaml"), from); got != first {
		t.Error("comments made another pod")
	}

	for what, other := range map[string]string{
		"argument":      uid([]byte(strings.Replace(string(plain), "/var/lib/etcd", "/data", 1)), from),
		"file":          uid(plain, Origin{Node: "node1", File: "/m/other.yaml"}),
		"node":          uid(plain, Origin{Node: "node2", File: "/m/etcd.yaml"}),
		"kind of place": uid(plain, Origin{Node: "node1", URL: "/m/etcd.yaml"}),
	} {
		if other == first {
			t.Errorf("another %s, the same pod", what)
		}
	}
}

func TestStaticPodBelongsToItsNode(t *testing.T) {
	pod, _, err := Pod(manifest(t, "etcd.yaml"), Origin{Node: "Node1", File: "/m/etcd.yaml"})
	if err != nil {
		t.Fatal(err)
	}
	always := v1.Toleration{Operator: v1.TolerationOpExists, Effect: v1.TaintEffectNoExecute}
	if pod.Name != "etcd-node1" || pod.Spec.NodeName != "Node1" || pod.Status.Phase != v1.PodPending ||
		pod.Annotations[AnnotationSource] != "file" || !slices.Contains(pod.Spec.Tolerations, always) {
		t.Errorf("pod %+v", pod)
	}
}

func TestUnknownFieldsAreWarnedOfAndTheRestCounts(t *testing.T) {
	pod, warnings, err := Pod(manifest(t, "unknown-field.yaml"), Origin{Node: "node1", File: "/m/x.yaml"})
	if err != nil {
		t.Fatal(err)
	}

	told := strings.Join(warnings, "\n")
	if len(warnings) != 2 ||
		!strings.Contains(told, "madeUpField") || !strings.Contains(told, "imagepullpolicy") {
		t.Errorf("warnings %q", warnings)
	}

	if pod.Spec.Containers[0].ImagePullPolicy != v1.PullIfNotPresent {
		t.Error("a field whose name has the wrong case was taken")
	}
}

func TestManifestsThatMayNotRunAreRefused(t *testing.T) {
	pod := func(metadata, spec string) string {
		return "{apiVersion: v1, kind: Pod, metadata: {" + metadata + "}, spec: {" + spec + "}}"
	}

	const one = `containers: [{name: c, image: "registry.example/c:1"}]`
	volume := func(source string) string { return pod("name: a", one+", volumes: [{name: v, "+source+"}]") }
	const env = "envFrom: [{configMapRef: {name: m}}]"
	cases := map[string]string{
		"want a v1 Pod":             `{apiVersion: v1, kind: Service, metadata: {name: a}}`,
		"kind are missing":          "",
		"has no name":               pod("", one),
		"no containers":             pod("name: a", ""),
		"two containers":            pod("name: a", one+", initContainers: [{name: c, image: i}]"),
		"has no image":              pod("name: a", "containers: [{name: c}]"),
		"name ../../etc-node1":      pod("name: ../../etc", one),
		"namespace ../x":            pod("name: a, namespace: ../x", one),
		"uid ../../../etc":          pod("name: a, uid: ../../../etc", one),
		`container name "../c"`:     pod("name: a", "containers: [{name: ../c, image: i}]"),
		`volume name "../v"`:        pod("name: a", one+", volumes: [{name: ../v}]"),
		"may not reference secrets": volume("secret: {secretName: s}"),
		"reference configmaps":      pod("name: a", "containers: [{name: c, image: i, "+env+"}]"),
		"reference serviceaccounts": pod("name: a", one+", serviceAccountName: robot"),
		"persistentvolumeclaims":    volume("persistentVolumeClaim: {claimName: c}"),
		"via projected volumes":     volume("projected: {sources: [{serviceAccountToken: {path: t}}]}"),
	}

	for want, text := range cases {
		_, _, err := Pod([]byte(text), Origin{Node: "node1", File: "/m/x.yaml"})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want %q", text, err, want)
		}
	}
}

func FuzzPod(f *testing.F) {
	for _, name := range []string{"etcd.yaml", "defaults.yaml", "own-uid.yaml", "list.json"} {
		data, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil {
			f.Fatal(err)
		}

		f.Add(data)
	}

	f.Fuzz(func(t *testing.T, data []byte) {
		if pods, _, err := Pods(data, Origin{Node: "node1", URL: "http://192.0.2.1"}); err == nil {
			for _, pod := range pods {
				if pod.UID == "" || pod.Name == "" {
					t.Errorf("accepted %+v", pod)
				}
			}
		}

		pod, _, err := Pod(data, Origin{Node: "node1", File: "/m/x.yaml"})
		if err != nil {
			return
		}

		for _, part := range []string{string(pod.UID), pod.Name, pod.Namespace} {
			if part == "" || strings.ContainsAny(part, "/\x00") {
				t.Errorf("accepted %q in a path", part)
			}
		}

		again, _, err := Pod(data, Origin{Node: "node1", File: "/m/x.yaml"})
		if err != nil || again.UID != pod.UID {
			t.Errorf("read again it is %v, %v", again, err)
		}
	})
}
