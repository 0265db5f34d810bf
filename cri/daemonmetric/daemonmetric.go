// Package daemonmetric is trivet-cri's own metrics (trivet_cri_*): CRI calls, the steps of a pod's start, the
// calls of CNI plugins, pulls of images, what there is by state, and the connection to trivet-monitor. What
// does the work knows nothing about it: it is measured around the interfaces by which the parts of the server
// meet, and what there is is counted when there is a scrape.
package daemonmetric

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/trivet-node/trivet/cri/image"
	"github.com/trivet-node/trivet/cri/registry"
	"github.com/trivet-node/trivet/cri/server"
	"github.com/trivet-node/trivet/internal/metric"
)

const namespace = "trivet_cri"

// Set is all metrics of a server.
type Set struct {
	Registry *prometheus.Registry

	// Calls observes the calls of CRI.
	Calls *metric.Calls

	steps  *prometheus.HistogramVec
	cni    *prometheus.CounterVec
	pulls  *prometheus.HistogramVec
	pulled atomic.Uint64
}

// New returns the metrics, all of them zero.
func New() *Set {
	s := &Set{
		Registry: metric.NewRegistry("trivet-cri"),
		Calls:    metric.NewCalls("trivet_cri_call", "CRI calls"),
		steps: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Namespace: namespace,
			Name:      "step_duration_seconds",
			Help:      "Duration of the steps of pods' starts and ends in seconds, by step and result.",
			Buckets:   metric.CallBuckets,
		}, []string{"step", "result"}),
		cni: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: namespace,
			Name:      "cni_calls_total",
			Help:      "Number of calls of the network, by command and the CNI code of the error; 0: none.",
		}, []string{"command", "code"}),
		pulls: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Namespace: namespace,
			Name:      "image_pull_duration_seconds",
			Help:      "Duration of pulls of images in seconds, by result.",
			Buckets:   metric.CallBuckets,
		}, []string{"result"}),
	}

	pulled := prometheus.NewCounterFunc(prometheus.CounterOpts{
		Namespace: namespace,
		Name:      "image_pull_bytes_total",
		Help:      "Bytes of blobs that came from registries, as they were sent.",
	}, func() float64 { return float64(s.pulled.Load()) })

	s.Registry.MustRegister(s.Calls, s.steps, s.cni, s.pulls, pulled)
	return s
}

// Received counts bytes of a blob that came from a registry.
func (s *Set) Received(bytes int64) { s.pulled.Add(uint64(bytes)) }

// result is the label of how something ended.
func result(err error) string {
	if err != nil {
		return "error"
	}
	return "ok"
}

// step measures a step.
func (s *Set) step(name string, began time.Time, err error) {
	s.steps.WithLabelValues(name, result(err)).Observe(time.Since(began).Seconds())
}

// Images measures pulls.
func (s *Set) Images(images server.Images) server.Images { return measuredImages{images, s} }

type measuredImages struct {
	server.Images
	set *Set
}

// Pull implements server.Images.
func (m measuredImages) Pull(ctx context.Context, name string, auth registry.Auth) (image.Image, error) {
	began := time.Now()
	pulled, err := m.Images.Pull(ctx, name, auth)
	m.set.pulls.WithLabelValues(result(err)).Observe(time.Since(began).Seconds())
	return pulled, err
}
