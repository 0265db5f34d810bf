package netdmetric

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/trivet-node/trivet/cni/netd/enforcer"
	"github.com/trivet-node/trivet/cni/policy"
	"github.com/trivet-node/trivet/internal/metric"
)

func (s *Set) addPolicyMetrics() {
	s.enforced = counters("policy_passes_total",
		"Number of passes over network policies, by result.", "result")
	s.enforcedTook = prometheus.NewHistogram(prometheus.HistogramOpts{
		Namespace: namespace,
		Name:      "policy_pass_duration_seconds",
		Help:      "Duration of passes over network policies in seconds.",
		Buckets:   metric.CallBuckets,
	})
	s.updates = prometheus.NewCounter(prometheus.CounterOpts{
		Namespace: namespace,
		Name:      "policy_updates_total",
		Help:      "Number of times the rules of network policies were changed in the kernel.",
	})
	s.policies = gauge("policies", "Number of network policies of the cluster.")
	s.refused = gauge("policies_refused",
		"Number of network policies that allow nothing here: they are too large or cannot be read.")
	s.isolated = gauge("policy_pods", "Number of pods of the node that network policies select.")
	s.dropped = desc("policy_dropped_packets_total",
		"Number of packets that network policies dropped, by direction, since the rules were written.",
		"direction")

	// What has not happened yet is zero.
	for _, result := range []string{"ok", "error"} {
		s.enforced.WithLabelValues(result)
	}
}

// Enforced counts a pass over network policies.
func (s *Set) Enforced(r enforcer.Report) {
	s.enforcedTook.Observe(r.Took.Seconds())
	if r.Err != nil {
		s.enforced.WithLabelValues("error").Inc()
		return
	}

	s.enforced.WithLabelValues("ok").Inc()
	if r.Changed {
		s.updates.Inc()
	}
	s.policies.Set(float64(r.Policies))
	s.refused.Set(float64(len(r.Problems)))
	s.isolated.Set(float64(r.Isolated))
}

func (s *Set) collectDropped(out chan<- prometheus.Metric) {
	if s.rules == nil {
		return
	}

	dropped, err := s.rules.Dropped()
	if err != nil {
		out <- prometheus.NewInvalidMetric(s.dropped, err)
		return
	}
	for _, d := range policy.Directions {
		out <- prometheus.MustNewConstMetric(
			s.dropped, prometheus.CounterValue, float64(dropped[d]), d.String())
	}
}
