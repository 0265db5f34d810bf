package kubeletmetric

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/trivet-node/trivet/node/inventory"
	"github.com/trivet-node/trivet/node/kubeletconfig"
	"github.com/trivet-node/trivet/node/nodestatus"
	"github.com/trivet-node/trivet/node/plan"
	"github.com/trivet-node/trivet/node/podtiming"
	"github.com/trivet-node/trivet/node/runtime"
)

func newSet() *Set {
	return New(Config{
		NodeName:      "n1",
		Version:       "v1.37.2-trivet.0.1",
		CgroupVersion: 2,
		Gates:         []kubeletconfig.Gate{{Name: "Some", Stage: "BETA", Enabled: true}},
	})
}

func scrape(s *Set) string {
	w := httptest.NewRecorder()
	s.Handler(slog.Default()).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	return w.Body.String()
}

// has fails for each line that a scrape does not have.
func has(t *testing.T, s *Set, lines ...string) {
	t.Helper()
	got := scrape(s)
	for _, line := range lines {
		if !strings.Contains(got, "\n"+line+"\n") {
			t.Errorf("no %s in\n%s", line, got)
		}
	}
}

func TestTheNodeIsNamed(t *testing.T) {
	has(t, newSet(),
		`kubelet_node_name{node="n1"} 1`,
		`kubelet_cgroup_version 2`,
		`kubernetes_feature_enabled{name="Some",stage="BETA"} 1`)
	if got := scrape(newSet()); !strings.Contains(got, `git_version="v1.37.2-trivet.0.1"`) ||
		!strings.Contains(got, `major="1",minor="37"`) {
		t.Errorf("no version in\n%s", got)
	}
}

func TestOperationsHaveKubeletsNames(t *testing.T) {
	for method, want := range map[string]string{
		"CreateContainer":          "create_container",
		"RunPodSandbox":            "run_podsandbox",
		"ListPodSandbox":           "list_podsandbox",
		"PodSandboxStatus":         "podsandbox_status",
		"ListPodSandboxStats":      "list_podsandbox_stats",
		"UpdateContainerResources": "update_container",
		"ReopenContainerLog":       "reopen_container_log",
		"ImageFsInfo":              "image_fs_info",
		"ExecSync":                 "exec_sync",
		"Status":                   "status",
		"GetContainerEvents":       "get_container_events",
	} {
		if got := operationOf(method); got != want {
			t.Errorf("%s: %s, want %s", method, got, want)
		}
	}
}

func TestCallsOfTheRuntimeAreCounted(t *testing.T) {
	s := newSet()
	s.Runtime.Observe("/runtime.v1.RuntimeService/StartContainer", codes.OK, 20*time.Millisecond)
	s.Runtime.Observe("/runtime.v1.RuntimeService/StartContainer", codes.NotFound, time.Millisecond)
	s.Runtime.Relisted(time.Unix(100, 0), time.Millisecond)
	s.Runtime.Relisted(time.Unix(145, 0), time.Millisecond)
	has(t, s,
		`kubelet_runtime_operations_total{operation_type="start_container"} 2`,
		`kubelet_runtime_operations_errors_total{operation_type="start_container"} 1`,
		`kubelet_runtime_operations_duration_seconds_bucket{operation_type="start_container",le="0.005"} 1`,
		`kubelet_runtime_operations_duration_seconds_count{operation_type="start_container"} 2`,
		`kubelet_pleg_relist_duration_seconds_count 2`,
		`kubelet_pleg_relist_interval_seconds_sum 45`,
		`kubelet_pleg_last_seen_seconds 145`)
}

func TestStartsOfPodsAreCounted(t *testing.T) {
	s := newSet()
	pod := &v1.Pod{Spec: v1.PodSpec{
		InitContainers: []v1.Container{{Name: "init"}},
		Containers:     []v1.Container{{Name: "app"}},
		HostUsers:      new(false),
	}}
	s.Pods.SandboxStarted(pod, "", 30*time.Millisecond, nil)
	s.Pods.SandboxStarted(pod, "kata", time.Second, errors.New("no"))
	s.Pods.ContainerStarted(pod, "init", "")
	s.Pods.ContainerStarted(pod, "app", "RunContainerError")
	s.Pods.ContainerStarted(pod, "debugger", "")
	s.Pods.FirstStartFailed(pod)
	s.Pods.FirstStartFailed(&v1.Pod{})
	s.Pods.Worked(podtiming.Round{Kind: podtiming.Create, Took: time.Second, Waited: time.Millisecond})

	ended := &v1.PodStatus{ContainerStatuses: []v1.ContainerStatus{{
		Name: "app",
		State: v1.ContainerState{
			Terminated: &v1.ContainerStateTerminated{ExitCode: 137, Reason: "OOMKilled"},
		},
	}}}
	start := podtiming.Start{
		Complete:     true,
		Runs:         true,
		SinceSeen:    time.Second,
		SinceCreated: 3 * time.Second,
		SLI:          2 * time.Second,
		Network:      true,
	}
	s.Pods.StatusShown(&v1.PodStatus{}, ended, time.Millisecond, start)
	s.Pods.StatusShown(ended, ended, time.Millisecond, podtiming.Start{})

	has(t, s,
		`kubelet_started_pods_total 2`,
		`kubelet_started_pods_errors_total 1`,
		`kubelet_started_user_namespaced_pods_total 2`,
		`kubelet_started_user_namespaced_pods_errors_total 2`,
		`kubelet_run_podsandbox_errors_total{runtime_handler="kata"} 1`,
		`kubelet_run_podsandbox_duration_seconds_count{runtime_handler=""} 1`,
		`kubelet_started_containers_total{container_type="init_container"} 1`,
		`kubelet_started_containers_total{container_type="ephemeral_container"} 1`,
		`kubelet_started_containers_errors_total{code="RunContainerError",container_type="container"} 1`,
		`kubelet_terminated_containers_total{container_type="container",exit_code="137",`+
			`reason="OOMKilled"} 1`,
		`kubelet_pod_worker_duration_seconds_count{operation_type="create"} 1`,
		`kubelet_pod_worker_start_duration_seconds_sum 0.001`,
		`kubelet_pod_start_duration_seconds_sum 1`,
		`kubelet_pod_start_sli_duration_seconds_sum 2`,
		`kubelet_pod_start_total_duration_seconds_sum 3`,
		`kubelet_first_network_pod_start_sli_duration_seconds 2`,
		`kubelet_pod_status_sync_duration_seconds_count 2`)
}

func TestSizesOfImagesAreInKubeletsClasses(t *testing.T) {
	for bytes, want := range map[uint64]string{
		0:         "0-10MB",
		10 << 20:  "10MB-100MB",
		2 << 30:   "1GB-5GB",
		200 << 30: "GT100GB",
	} {
		if got := sizeClass(bytes); got != want {
			t.Errorf("%d: %s, want %s", bytes, got, want)
		}
	}
}

func TestRequestsAreCountedByTheRootOfTheirPath(t *testing.T) {
	s := newSet()
	inner := http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		has(t, s, `kubelet_http_inflight_requests{long_running="false",method="GET",path="metrics/cadvisor",`+
			`server_type="readwrite"} 1`)
	})
	handler := s.Requests.Wrap(inner)
	handler.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/metrics/cadvisor", nil))

	handler = s.Requests.Wrap(http.NotFoundHandler())
	for _, path := range []string{"/exec/ns/p/c", "/made/up", "/up/made"} {
		handler.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("BREW", path, nil))
	}
	has(t, s,
		`kubelet_http_inflight_requests{long_running="false",method="GET",path="metrics/cadvisor",`+
			`server_type="readwrite"} 0`,
		`kubelet_http_requests_total{long_running="true",method="other",path="exec",`+
			`server_type="readwrite"} 1`,
		`kubelet_http_requests_total{long_running="false",method="other",path="other",`+
			`server_type="readwrite"} 2`)
}

func TestCertificatesHaveTheTimeThatIsLeft(t *testing.T) {
	s := newSet()
	s.Certificates.ClientRenewalFailed()
	has(t, s,
		`kubelet_certificate_manager_client_ttl_seconds +Inf`,
		`kubelet_certificate_manager_server_ttl_seconds +Inf`,
		`kubelet_certificate_manager_client_expiration_renew_errors 1`,
		`kubelet_server_expiration_renew_errors 0`)

	s.Certificates.ServerRotated(time.Hour)
	has(t, s, `kubelet_certificate_manager_server_rotation_seconds_bucket{le="3600"} 1`)

	s.Certificates.Client = func() time.Time { return time.Now().Add(-time.Hour) }
	if got := scrape(s); !strings.Contains(got, "kubelet_certificate_manager_client_ttl_seconds -3600") {
		t.Error(got)
	}
}

func TestTheStartOfANewNodeIsMeasured(t *testing.T) {
	at := func(seconds int64) time.Time { return time.Unix(seconds, 0) }
	s := newSet()
	startup := newStartup(at(100), at(60))
	s.Registry.Unregister(s.Startup)
	s.Registry.MustRegister(startup)

	startup.reached(nodestatus.Registering, at(101))
	startup.reached(nodestatus.Registered, at(103))
	startup.reached(nodestatus.Ready, at(107))
	startup.reached(nodestatus.Registered, at(200))
	has(t, s,
		`kubelet_node_startup_pre_kubelet_duration_seconds 40`,
		`kubelet_node_startup_pre_registration_duration_seconds 1`,
		`kubelet_node_startup_registration_duration_seconds 2`,
		`kubelet_node_startup_post_registration_duration_seconds 4`,
		`kubelet_node_startup_duration_seconds 47`)

	// One that exists already is not new.
	startup = newStartup(at(100), at(60))
	s.Registry.Unregister(startup)
	s.Registry.MustRegister(startup)
	startup.reached(nodestatus.Registering, at(101))
	startup.reached(nodestatus.Ready, at(107))
	has(t, s, `kubelet_node_startup_duration_seconds 0`)
}

func TestVolumesAreCountedByPlugin(t *testing.T) {
	s := newSet()
	const secret = "kubernetes.io/secret"
	s.Volumes.Mounted(secret, time.Millisecond, nil)
	s.Volumes.Mounted(secret, time.Millisecond, errors.New("no"))
	s.Volumes.Called("csi.example", "/csi.v1.Node/NodePublishVolume", codes.OK, time.Second)
	has(t, s,
		`storage_operation_duration_seconds_count{migrated="false",operation_name="volume_mount",`+
			`status="success",volume_plugin="kubernetes.io/secret"} 1`,
		`storage_operation_duration_seconds_count{migrated="false",operation_name="volume_mount",`+
			`status="fail-unknown",volume_plugin="kubernetes.io/secret"} 1`,
		`csi_operations_seconds_count{driver_name="csi.example",grpc_status_code="OK",`+
			`method_name="/csi.v1.Node/NodePublishVolume",migrated="false"} 1`)
}

// node is a runtime and a source of pods.
type node struct{ broken bool }

func (n node) Sandboxes(context.Context, runtime.Selection) ([]runtime.Sandbox, error) {
	if n.broken {
		return nil, errors.New("no answer")
	}
	return make([]runtime.Sandbox, 2), nil
}

func (n node) Containers(context.Context, runtime.Selection) ([]runtime.Container, error) {
	if n.broken {
		return nil, errors.New("no answer")
	}
	return []runtime.Container{{State: plan.Running}, {State: plan.Running}, {State: plan.Exited}}, nil
}

func (node) List() []*v1.Pod {
	ended := &v1.Pod{Status: v1.PodStatus{Phase: v1.PodSucceeded}}
	running := &v1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "web"},
		Spec: v1.PodSpec{Volumes: []v1.Volume{
			{VolumeSource: v1.VolumeSource{ConfigMap: &v1.ConfigMapVolumeSource{}}},
		}},
	}
	return []*v1.Pod{ended, running}
}

func (node) MirrorCount() int { return 1 }

// mounted are two volumes, of a driver.
func mounted() *inventory.Inventory {
	i := &inventory.Inventory{}
	i.Enter("u", "a", "kubernetes.io/csi:d", true)
	i.Enter("u", "b", "kubernetes.io/csi:d", true)
	return i
}

func TestPodsAndContainersAreCountedWhenThereIsAScrape(t *testing.T) {
	s := newSet()
	s.Count(node{}, node{}, mounted())
	s.CountProtected(func() (guaranteed, burstable int64) { return 1, 1 })
	has(t, s,
		`kubelet_running_pods 2`,
		`kubelet_running_containers{container_state="created"} 0`,
		`kubelet_running_containers{container_state="running"} 2`,
		`kubelet_desired_pods{static=""} 2`,
		`kubelet_active_pods{static=""} 1`,
		`kubelet_active_pods{static="true"} 0`,
		`kubelet_mirror_pods 1`,
		`kubelet_managed_ephemeral_containers 0`,
		`volume_manager_total_volumes{plugin_name="kubernetes.io/configmap",`+
			`state="desired_state_of_world"} 1`,
		`volume_manager_total_volumes{plugin_name="kubernetes.io/csi:d",`+
			`state="actual_state_of_world"} 2`)
}

func TestWhatTheRuntimeDoesNotAnswerIsLeftOut(t *testing.T) {
	s := newSet()
	s.Count(node{broken: true}, node{}, mounted())
	has(t, s, `kubelet_mirror_pods 1`)
	if got := scrape(s); strings.Contains(got, "kubelet_running") {
		t.Error(got)
	}
}

func TestRemovedImagesAndProtectedMemoryAreCounted(t *testing.T) {
	s := newSet()
	s.CountProtected(func() (guaranteed, burstable int64) { return 4096, 8192 })
	for _, reason := range []string{"space", "age", "space"} {
		s.Images.Removed(reason)
	}
	has(t, s,
		`kubelet_image_garbage_collected_total{reason="age"} 1`,
		`kubelet_image_garbage_collected_total{reason="space"} 2`,
		`kubelet_memory_qos_node_memory_min_bytes 4096`,
		`kubelet_memory_qos_node_memory_low_bytes 8192`)
}
