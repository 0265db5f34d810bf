package cadvisor

import (
	"github.com/trivet-node/trivet/node/exposition"
	"github.com/trivet-node/trivet/node/usage"
)

// networkMetrics are the traffic of the interfaces of a network namespace.
var networkMetrics = []metric{
	{
		name:  "container_network_receive_bytes_total",
		kind:  exposition.Counter,
		help:  "Cumulative count of bytes received",
		write: traffic(func(i *usage.Interface) uint64 { return i.Received.Bytes }),
		bare:  true,
	},
	{
		name:  "container_network_receive_packets_total",
		kind:  exposition.Counter,
		help:  "Cumulative count of packets received",
		write: traffic(func(i *usage.Interface) uint64 { return i.Received.Packets }),
		bare:  true,
	},
	{
		name:  "container_network_receive_packets_dropped_total",
		kind:  exposition.Counter,
		help:  "Cumulative count of packets dropped while receiving",
		write: traffic(func(i *usage.Interface) uint64 { return i.Received.Dropped }),
		bare:  true,
	},
	{
		name:  "container_network_receive_errors_total",
		kind:  exposition.Counter,
		help:  "Cumulative count of errors encountered while receiving",
		write: traffic(func(i *usage.Interface) uint64 { return i.Received.Errors }),
		bare:  true,
	},
	{
		name:  "container_network_transmit_bytes_total",
		kind:  exposition.Counter,
		help:  "Cumulative count of bytes transmitted",
		write: traffic(func(i *usage.Interface) uint64 { return i.Sent.Bytes }),
		bare:  true,
	},
	{
		name:  "container_network_transmit_packets_total",
		kind:  exposition.Counter,
		help:  "Cumulative count of packets transmitted",
		write: traffic(func(i *usage.Interface) uint64 { return i.Sent.Packets }),
		bare:  true,
	},
	{
		name:  "container_network_transmit_packets_dropped_total",
		kind:  exposition.Counter,
		help:  "Cumulative count of packets dropped while transmitting",
		write: traffic(func(i *usage.Interface) uint64 { return i.Sent.Dropped }),
		bare:  true,
	},
	{
		name:  "container_network_transmit_errors_total",
		kind:  exposition.Counter,
		help:  "Cumulative count of errors encountered while transmitting",
		write: traffic(func(i *usage.Interface) uint64 { return i.Sent.Errors }),
		bare:  true,
	},
}

func traffic(read func(*usage.Interface) uint64) func(*exposition.Writer, *row) {
	return func(w *exposition.Writer, r *row) {
		for i := range r.interfaces {
			one := &r.interfaces[i]
			w.Uint(read(one), r.Time, r.labels, labelOf("interface", one.Name))
		}
	}
}
