package series

import (
	"slices"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// baseValues are the values of the base labels.
type baseValues struct{ container, id, image, name, namespace, pod string }

// list returns them in the order of baseLabels.
func (v baseValues) list() []string {
	return []string{v.container, v.id, v.image, v.name, v.namespace, v.pod}
}

// builder collects metrics. They share their labels, and are made in bulk: a node has some ten thousand.
type builder struct {
	metrics []*runtimeapi.Metric
	base    baseValues
	labels  []string

	// at is when the values were read, in nanoseconds since 1970.
	at int64

	bulk   []runtimeapi.Metric
	values []runtimeapi.UInt64Value
}

func newBuilder(size int, base baseValues) *builder {
	return &builder{
		metrics: make([]*runtimeapi.Metric, 0, size),
		base:    base,
		labels:  base.list(),
		bulk:    make([]runtimeapi.Metric, size),
		values:  make([]runtimeapi.UInt64Value, size),
	}
}

// of makes name the value of the label name for what is added from now on.
func (b *builder) of(name string) *builder {
	b.base.name = name
	b.labels = b.base.list()
	return b
}

// with returns the values of the base labels and of others.
func (b *builder) with(values ...string) []string { return slices.Concat(b.labels, values) }

// add adds a metric without labels of its own.
func (b *builder) add(f *family, value uint64) { b.labeled(f, b.labels, value) }

// labeled adds a metric with these labels, which must be all that the family has.
func (b *builder) labeled(f *family, labels []string, value uint64) {
	if len(b.bulk) == 0 {
		b.bulk = make([]runtimeapi.Metric, cap(b.metrics)/2)
		b.values = make([]runtimeapi.UInt64Value, cap(b.metrics)/2)
	}

	metric, number := &b.bulk[0], &b.values[0]
	b.bulk = b.bulk[1:]
	b.values = b.values[1:]

	number.Value = value
	metric.Name = f.name
	metric.MetricType = f.kind
	metric.Timestamp = b.at
	metric.LabelValues = labels
	metric.Value = number
	b.metrics = append(b.metrics, metric)
}
