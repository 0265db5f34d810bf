package cadvisor

import (
	"time"

	"github.com/trivet-node/trivet/node/exposition"
)

// writeVersion writes the versions of the machine. There is no cAdvisor and no Docker; kubelet leaves their
// labels empty as well.
func writeVersion(w *exposition.Writer, n *Node) {
	w.Family("cadvisor_version_info", exposition.Gauge, "A metric with a constant '1' value labeled by "+
		"kernel version, OS version, docker version, cadvisor version & cadvisor revision.")
	w.Uint(1, time.Time{}, exposition.Pairs(
		"cadvisorRevision", "",
		"cadvisorVersion", "",
		"dockerVersion", "",
		"kernelVersion", n.KernelVersion,
		"osVersion", n.OSImage,
	))
}

// writeMachine writes what the machine has. As with kubelet, the samples have no time.
func writeMachine(w *exposition.Writer, n *Node) {
	ids := exposition.Pairs("boot_id", n.BootID, "machine_id", n.MachineID, "system_uuid", n.SystemUUID)
	for _, m := range []struct {
		name, help string
		value      uint64
	}{
		{"machine_cpu_physical_cores", "Number of physical CPU cores.", uint64(n.Topology.Cores)},
		{"machine_cpu_cores", "Number of logical CPU cores.", uint64(n.Topology.CPUs)},
		{"machine_cpu_sockets", "Number of CPU sockets.", uint64(n.Topology.Sockets)},
		{"machine_cpu_books", "Number of CPU books.", uint64(n.Topology.Books)},
		{"machine_cpu_drawers", "Number of CPU drawers.", uint64(n.Topology.Drawers)},
		{"machine_memory_bytes", "Amount of memory installed on the machine.", n.MemoryBytes},
		{"machine_swap_bytes", "Amount of swap memory available on the machine.", n.SwapBytes},
	} {
		w.Family(m.name, exposition.Gauge, m.help)
		w.Uint(m.value, time.Time{}, ids)
	}

	w.Family("machine_dimm_count", exposition.Gauge,
		"Number of RAM DIMM (all types memory modules) value labeled by dimm type.")
	for _, d := range n.DIMMs {
		w.Uint(uint64(d.Count), time.Time{}, ids, labelOf("type", d.Type))
	}

	w.Family("machine_dimm_capacity_bytes", exposition.Gauge,
		"Total RAM DIMM capacity (all types memory modules) value labeled by dimm type.")
	for _, d := range n.DIMMs {
		w.Uint(d.Bytes, time.Time{}, ids, labelOf("type", d.Type))
	}

	w.Family("machine_scrape_error", exposition.Gauge,
		"1 if there was an error while getting machine metrics, 0 otherwise.")
	w.Uint(boolean(n.Failed), time.Time{})
}
