package kubeletmetric

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/codes"
)

// storageBuckets are those of operations on volumes, in seconds.
var storageBuckets = []float64{.1, .25, .5, 1, 2.5, 5, 10, 15, 25, 50, 120, 300, 600}

// Volumes counts what is done for volumes.
type Volumes struct {
	group
	operations *prometheus.HistogramVec
	calls      *prometheus.HistogramVec
}

func newVolumes() *Volumes {
	v := &Volumes{
		operations: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "storage_operation_duration_seconds",
			Help:    "Duration of operations on volumes in seconds, by kind of volume, operation and result.",
			Buckets: storageBuckets,
		}, []string{"volume_plugin", "operation_name", "status", "migrated"}),
		calls: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "csi_operations_seconds",
			Help:    "Duration of calls of CSI drivers in seconds, by driver, method and gRPC code.",
			Buckets: storageBuckets,
		}, []string{"driver_name", "method_name", "grpc_status_code", "migrated"}),
	}
	v.group = group{v.operations, v.calls}
	return v
}

// Mounted counts a volume that a plugin has mounted or brought up to date, or could not.
func (v *Volumes) Mounted(plugin string, took time.Duration, err error) {
	status := "success"
	if err != nil {
		status = "fail-unknown"
	}
	labels := []string{plugin, "volume_mount", status, "false"}
	v.operations.WithLabelValues(labels...).Observe(took.Seconds())
}

// Called counts a call of a CSI driver, by the full method.
func (v *Volumes) Called(driver, method string, code codes.Code, took time.Duration) {
	v.calls.WithLabelValues(driver, method, code.String(), "false").Observe(took.Seconds())
}
