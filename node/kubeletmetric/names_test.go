package kubeletmetric

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/trivet-node/trivet/internal/testenv"
	"github.com/trivet-node/trivet/node/podcertificate"
	"github.com/trivet-node/trivet/node/podtiming"
)

// everything counts once of each.
func everything(t *testing.T) *Set {
	t.Helper()
	s := newSet()
	s.Count(node{}, node{}, mounted())
	s.CountProtected(func() (guaranteed, burstable int64) { return 1, 1 })
	s.Runtime.Observe("/runtime.v1.RuntimeService/Version", codes.Unavailable, 0)
	s.Runtime.Relisted(time.Unix(1, 0), 0)
	s.Runtime.Relisted(time.Unix(2, 0), 0)
	s.Images.Pulled(1, time.Second)
	s.Images.Removed("space")
	s.Volumes.Mounted("kubernetes.io/secret", 0, nil)
	s.Volumes.Called("csi.example", "/csi.v1.Node/NodeGetInfo", codes.OK, 0)
	s.Client.Answered("200", "GET", "api")
	s.Client.Took("GET", "api", 0)
	s.Client.Sent("GET", "api", 0)
	s.Client.Received("GET", "api", 0)
	s.Certificates.ServerRotated(0)
	s.Certificates.Pods = func() map[podcertificate.Kind]int {
		return map[podcertificate.Kind]int{{Signer: "example.com/signer", State: "fresh"}: 1}
	}
	s.Requests.Wrap(http.NotFoundHandler()).ServeHTTP(
		httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/", nil))

	pod := &v1.Pod{Spec: v1.PodSpec{HostUsers: new(false), Containers: []v1.Container{{Name: "c"}}}}
	ended := &v1.PodStatus{ContainerStatuses: []v1.ContainerStatus{{
		State: v1.ContainerState{Terminated: &v1.ContainerStateTerminated{}},
	}}}
	s.Pods.SandboxStarted(pod, "", 0, errors.New("no"))
	s.Pods.ContainerStarted(pod, "c", "RunContainerError")
	s.Pods.StatusShown(&v1.PodStatus{}, ended, 0, podtiming.Start{Runs: true, Complete: true})
	s.Pods.Worked(podtiming.Round{Kind: podtiming.Create})
	s.Pods.Rejected("OutOfcpu")
	s.Pods.Preempted()
	s.Pods.Evicted("memory.available")
	s.Pods.Chosen("memory.available", 0)
	s.Pods.Cgroup("create", 0)

	bigger := pod.DeepCopy()
	bigger.Spec.Containers[0].Resources.Limits = v1.ResourceList{"cpu": resource.MustParse("1")}
	s.Resizes.Asked(pod, bigger)
	s.Resizes.Infeasible("plr_feature_gate_off")
	s.Resizes.Waits(bigger, "Deferred")
	s.Resizes.Decided(bigger, 0, "accepted", "pod_updated")
	s.Resizes.GoesOn("u", true)
	s.Resizes.Took(0, nil)
	return s
}

// elsewhere are names of the page that node/stats registers.
var elsewhere = []string{"kubelet_volume_stats_", "kubelet_container_log_"}

func TestTheListOfNamesIsWhatIsServed(t *testing.T) {
	families, err := everything(t).Registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	served := map[string]bool{}
	for _, f := range families {
		served[f.GetName()] = true
	}

	listed := map[string]bool{}
	for _, m := range testenv.KubeletMetrics(t, "/metrics") {
		listed[m.Name] = m.State == "served"
		own := !slices.ContainsFunc(elsewhere, func(p string) bool { return strings.HasPrefix(m.Name, p) })
		if listed[m.Name] && own && !served[m.Name] {
			t.Errorf("%s is listed and not served", m.Name)
		}
	}

	// Of the library's names only those are listed that kubelet's documents have.
	for name := range served {
		library := strings.HasPrefix(name, "go_") || strings.HasPrefix(name, "process_")
		if !listed[name] && !library && name != "trivet_build_info" {
			t.Errorf("%s is served and not listed", name)
		}
	}
}

func TestRulesAndDashboardsForKubeletFindWhatTheyFilterBy(t *testing.T) {
	families, err := everything(t).Registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	labels := map[string][]string{}
	for _, f := range families {
		for _, pair := range f.GetMetric()[0].GetLabel() {
			labels[f.GetName()] = append(labels[f.GetName()], pair.GetName())
		}
	}

	for _, m := range testenv.MixinMetrics(t, "/metrics") {
		if slices.ContainsFunc(elsewhere, func(p string) bool { return strings.HasPrefix(m.Name, p) }) {
			continue
		}
		for _, label := range m.Labels {
			if !slices.Contains(labels[m.Name], label) {
				t.Errorf("%s has no label %s: %v", m.Name, label, labels[m.Name])
			}
		}
	}
}
