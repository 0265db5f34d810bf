package kubeletmetric

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/codes"
	v1 "k8s.io/api/core/v1"
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

// Mounted counts a volume that was mounted or brought up to date, or could not be.
func (v *Volumes) Mounted(volume *v1.Volume, took time.Duration, err error) {
	status := "success"
	if err != nil {
		status = "fail-unknown"
	}
	labels := []string{PluginOf(volume), "volume_mount", status, "false"}
	v.operations.WithLabelValues(labels...).Observe(took.Seconds())
}

// Called counts a call of a CSI driver, by the full method.
func (v *Volumes) Called(driver, method string, code codes.Code, took time.Duration) {
	v.calls.WithLabelValues(driver, method, code.String(), "false").Observe(took.Seconds())
}

// PluginOf returns kubelet's name for a kind of volume. Volumes of claims are those of CSI drivers.
func PluginOf(v *v1.Volume) string {
	src := &v.VolumeSource
	switch {
	case src.EmptyDir != nil:
		return "kubernetes.io/empty-dir"
	case src.HostPath != nil:
		return "kubernetes.io/host-path"
	case src.ConfigMap != nil:
		return "kubernetes.io/configmap"
	case src.Secret != nil:
		return "kubernetes.io/secret"
	case src.DownwardAPI != nil:
		return "kubernetes.io/downward-api"
	case src.Projected != nil:
		return "kubernetes.io/projected"

	case src.NFS != nil:
		return "kubernetes.io/nfs"
	case src.Image != nil:
		return "kubernetes.io/image"
	case src.CSI != nil:
		return "kubernetes.io/csi:" + src.CSI.Driver
	case src.PersistentVolumeClaim != nil, src.Ephemeral != nil:
		return "kubernetes.io/csi"
	}
	return "N/A"
}
