package main

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

var inject = injector{image: "proxy:1"}

// names are those of the init containers, in their order.
func names(pod *corev1.Pod) string {
	var all []string
	for _, c := range pod.Spec.InitContainers {
		all = append(all, c.Name)
	}
	return strings.Join(all, " ")
}

func application() *corev1.Pod {
	return &corev1.Pod{Spec: corev1.PodSpec{
		InitContainers: []corev1.Container{{Name: "prepare"}},
		Containers: []corev1.Container{{
			Name: "app",
			Ports: []corev1.ContainerPort{
				{ContainerPort: 9090},
				{ContainerPort: 8080},
				{ContainerPort: 53, Protocol: corev1.ProtocolUDP},
			},
		}},
	}}
}

func TestProxyComesBeforeAllOtherInitContainers(t *testing.T) {
	pod := application()
	if err := inject.proxy(pod); err != nil {
		t.Fatal(err)
	}
	if got := names(pod); got != "sidecar-redirect sidecar-proxy prepare" {
		t.Errorf("init containers %q", got)
	}
	if got := strings.Join(pod.Spec.InitContainers[0].Args, " "); got != "redirect --ports=8080,9090" {
		t.Errorf("redirect is called with %q", got)
	}
}

func TestPodThatIsChangedByOthersGetsTheProxyFirstAgain(t *testing.T) {
	pod := application()
	if err := inject.proxy(pod); err != nil {
		t.Fatal(err)
	}

	// As the API server does, and another webhook.
	pod.Spec.InitContainers[1].TerminationMessagePath = "/dev/termination-log"
	pod.Spec.InitContainers = append([]corev1.Container{{Name: "other"}}, pod.Spec.InitContainers...)
	if err := watch(pod); err != nil {
		t.Fatal(err)
	}

	if err := inject.proxy(pod); err != nil {
		t.Fatal(err)
	}
	if got := names(pod); got != "sidecar-redirect sidecar-proxy other prepare" {
		t.Errorf("init containers %q", got)
	}
	if got := strings.Join(pod.Spec.InitContainers[0].Args, " "); got != "redirect --ports=8080,8081,9090" {
		t.Errorf("redirect is called with %q", got)
	}
	if pod.Spec.InitContainers[1].TerminationMessagePath == "" {
		t.Error("what the API server has added to the proxy is gone")
	}
}

func TestRulesOfTheNodeAreLeftAlone(t *testing.T) {
	pod := application()
	pod.Spec.HostNetwork = true
	if err := inject.proxy(pod); err != nil || names(pod) != "prepare" {
		t.Errorf("init containers %q, %v", names(pod), err)
	}
}

func TestUserOfTheProxyIsRefused(t *testing.T) {
	pod := application()
	pod.Spec.Containers[0].SecurityContext = &corev1.SecurityContext{RunAsUser: new(int64(proxyUser))}
	if err := inject.proxy(pod); err == nil || !strings.Contains(err.Error(), "1337") {
		t.Errorf("error %v", err)
	}
}

// review sends a pod to a webhook.
func review(t *testing.T, pod *corev1.Pod, mutate mutation) *admissionv1.AdmissionResponse {
	t.Helper()
	raw, err := json.Marshal(pod)
	if err != nil {
		t.Fatal(err)
	}

	body, err := json.Marshal(admissionv1.AdmissionReview{
		Request: &admissionv1.AdmissionRequest{UID: "u", Object: runtime.RawExtension{Raw: raw}},
	})
	if err != nil {
		t.Fatal(err)
	}

	w := httptest.NewRecorder()
	request := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/", bytes.NewReader(body))
	webhook(slog.New(slog.DiscardHandler), mutate).ServeHTTP(w, request)
	var answer admissionv1.AdmissionReview
	if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil {
		t.Fatalf("%d %s: %v", w.Code, w.Body, err)
	}

	return answer.Response
}

func TestReviewIsAnsweredWithAPatchOfWhatChanges(t *testing.T) {
	pod := application()
	response := review(t, pod, inject.proxy)
	var patch []operation
	if err := json.Unmarshal(response.Patch, &patch); err != nil {
		t.Fatal(err)
	}
	if !response.Allowed || response.UID != "u" ||
		len(patch) != 1 || patch[0].Path != "/spec/initContainers" {
		t.Errorf("response %+v with the patch %s", response, response.Patch)
	}

	if err := inject.proxy(pod); err != nil {
		t.Fatal(err)
	}
	if again := review(t, pod, inject.proxy); !again.Allowed || again.Patch != nil {
		t.Errorf("a pod that has the proxy is changed: %s", again.Patch)
	}
}

func TestRefusalSaysWhy(t *testing.T) {
	response := review(t, &corev1.Pod{}, watch)
	if response.Allowed || !strings.Contains(response.Result.Message, "no port") {
		t.Errorf("response %+v", response)
	}
}

func FuzzReviewIsAnswered(f *testing.F) {
	f.Add([]byte(`{"request": {"uid": "u", "object": {"spec": {"containers": [{}]}}}}`))
	f.Add([]byte(`{"request": null}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		for _, mutate := range []mutation{inject.proxy, watch} {
			w := httptest.NewRecorder()
			sent := bytes.NewReader(body)
			request := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/", sent)
			webhook(slog.New(slog.DiscardHandler), mutate).ServeHTTP(w, request)
			if w.Code != http.StatusOK && w.Code != http.StatusBadRequest {
				t.Errorf("status %d for %q", w.Code, body)
			}
		}
	})
}
