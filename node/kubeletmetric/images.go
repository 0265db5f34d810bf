package kubeletmetric

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Images counts the pulls and removals of images.
type Images struct {
	group
	took    *prometheus.HistogramVec
	removed *prometheus.CounterVec
}

func newImages() *Images {
	i := &Images{
		took: histogram("image_pull_duration_seconds",
			"Duration of pulls of images in seconds, with the wait for other pulls, by size of the image.",
			[]float64{1, 5, 10, 20, 30, 60, 120, 180, 240, 300, 360, 480, 600, 900, 1200, 1800, 2700, 3600},
			"image_size_in_bytes"),
		removed: counter("image_garbage_collected_total",
			"Number of images that were removed because nobody used them, by why: age or space.", "reason"),
	}
	i.group = group{i.took, i.removed}
	return i
}

// Removed counts an image that was removed, because of its "age" or for "space".
func (i *Images) Removed(reason string) { i.removed.WithLabelValues(reason).Inc() }

// Pulled counts a pull of an image of so many bytes.
func (i *Images) Pulled(bytes uint64, took time.Duration) {
	i.took.WithLabelValues(sizeClass(bytes)).Observe(took.Seconds())
}

const (
	mega = 1 << 20
	giga = 1 << 30
)

// sizeClasses are kubelet's, each with the bytes at which it begins.
var sizeClasses = []struct {
	from  uint64
	label string
}{
	{100 * giga, "GT100GB"},
	{60 * giga, "60GB-100GB"},
	{40 * giga, "40GB-60GB"},
	{30 * giga, "30GB-40GB"},
	{20 * giga, "20GB-30GB"},
	{10 * giga, "10GB-20GB"},
	{5 * giga, "5GB-10GB"},
	{giga, "1GB-5GB"},
	{500 * mega, "500MB-1GB"},
	{100 * mega, "100MB-500MB"},
	{10 * mega, "10MB-100MB"},
	{0, "0-10MB"},
}

func sizeClass(bytes uint64) string {
	for _, class := range sizeClasses {
		if bytes >= class.from {
			return class.label
		}
	}
	return ""
}
