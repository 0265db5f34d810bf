package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"path/filepath"
	"reflect"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// maxReview is more than the API server accepts of an object, twice: a review may have an old one.
const maxReview = 8 << 20

// mutation changes a pod, or says why the pod may not be.
type mutation func(*corev1.Pod) error

// serveWebhooks serves the webhooks with TLS.
func serveWebhooks(ctx context.Context, log *slog.Logger, address, certificates string, i injector) error {
	mux := http.NewServeMux()
	mux.Handle("POST /proxy", webhook(log, i.proxy))
	mux.Handle("POST /watch", webhook(log, watch))
	mux.HandleFunc("GET /ready", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ready") })

	server := &http.Server{
		Addr:              address,
		Handler:           mux,
		ReadTimeout:       10 * time.Second,
		ReadHeaderTimeout: 5 * time.Second,
		WriteTimeout:      10 * time.Second,
	}

	// Requests that are there are answered before the program ends.
	answered := make(chan struct{})
	context.AfterFunc(ctx, func() {
		defer close(answered)
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		_ = server.Shutdown(ctx)
	})

	certificate, key := filepath.Join(certificates, "tls.crt"), filepath.Join(certificates, "tls.key")
	err := server.ListenAndServeTLS(certificate, key)
	if !errors.Is(err, http.ErrServerClosed) {
		return err
	}

	<-answered
	return nil
}

func webhook(log *slog.Logger, mutate mutation) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var review admissionv1.AdmissionReview
		err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxReview)).Decode(&review)
		if err != nil || review.Request == nil {
			http.Error(w, "not an AdmissionReview with a request", http.StatusBadRequest)
			return
		}

		review.Response = answer(review.Request, mutate)
		log.Info("pod reviewed",
			"webhook", r.URL.Path,
			"namespace", review.Request.Namespace,
			"allowed", review.Response.Allowed,
			"changed", review.Response.Patch != nil,
		)
		review.Request = nil
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(review)
	})
}

func answer(request *admissionv1.AdmissionRequest, mutate mutation) *admissionv1.AdmissionResponse {
	response := &admissionv1.AdmissionResponse{UID: request.UID}
	patch, err := patchOf(request.Object.Raw, mutate)
	if err != nil {
		response.Result = &metav1.Status{
			Code:    http.StatusForbidden,
			Reason:  metav1.StatusReasonForbidden,
			Message: err.Error(),
		}
		return response
	}

	response.Allowed = true
	if patch != nil {
		response.Patch = patch
		response.PatchType = new(admissionv1.PatchTypeJSONPatch)
	}
	return response
}

// operation of a JSON patch (RFC 6902). To add a member that is there is to replace it.
type operation struct {
	Op    string `json:"op"`
	Path  string `json:"path"`
	Value any    `json:"value"`
}

// patchOf is the patch that makes the change, or nil when nothing changes.
func patchOf(data []byte, mutate mutation) ([]byte, error) {
	var before corev1.Pod
	if err := json.Unmarshal(data, &before); err != nil {
		return nil, fmt.Errorf("decode the pod: %w", err)
	}

	after := before.DeepCopy()
	if err := mutate(after); err != nil {
		return nil, err
	}

	var patch []operation
	for path, lists := range map[string][2][]corev1.Container{
		"/spec/initContainers": {before.Spec.InitContainers, after.Spec.InitContainers},
		"/spec/containers":     {before.Spec.Containers, after.Spec.Containers},
	} {
		if !reflect.DeepEqual(lists[0], lists[1]) {
			patch = append(patch, operation{Op: "add", Path: path, Value: lists[1]})
		}
	}
	if patch == nil {
		return nil, nil
	}

	return json.Marshal(patch)
}
