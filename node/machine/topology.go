package machine

import (
	"path/filepath"
	"strconv"
	"strings"

	v1 "k8s.io/api/core/v1"
)

// Topology is how many of each the machine has. What it does not tell is 0.
type Topology struct {
	CPUs, Cores, Sockets, Books, Drawers int
}

// Topology reads what sysfs says of the processors that are online.
func (m Machine) Topology() Topology {
	dirs, err := filepath.Glob(m.path("sys/devices/system/cpu/cpu[0-9]*/topology"))
	if err != nil || len(dirs) == 0 {
		return Topology{CPUs: CPUs()}
	}

	out := Topology{CPUs: len(dirs)}
	cores, sockets := map[string]bool{}, map[string]bool{}
	books, drawers := map[string]bool{}, map[string]bool{}
	for _, dir := range dirs {
		id := func(name string) string { return Machine{Root: dir}.line(name) }
		socket := id("physical_package_id")
		sockets[socket] = true
		cores[socket+"/"+id("core_id")] = true
		books[id("book_id")] = true
		drawers[id("drawer_id")] = true
	}

	out.Cores = count(cores)
	out.Sockets = count(sockets)
	out.Books = count(books)
	out.Drawers = count(drawers)
	return out
}

// count returns how many IDs there are. A machine without books or drawers has none, or says -1.
func count(ids map[string]bool) int {
	delete(ids, "")
	delete(ids, "-1")
	return len(ids)
}

// DIMMs are the memory modules of one type.
type DIMMs struct {
	Type  string
	Count int
	Bytes uint64
}

// DIMMs returns the memory modules that the kernel's driver of the memory controller knows of, by type.
// Without such a driver, as on virtual machines, there are none.
func (m Machine) DIMMs() []DIMMs {
	dirs, err := filepath.Glob(m.path("sys/devices/system/edac/mc/mc*/dimm*"))
	if err != nil {
		return nil
	}

	var out []DIMMs
	for _, dir := range dirs {
		dimm := Machine{Root: dir}
		mebibytes, err := strconv.ParseUint(dimm.line("size"), 10, 32)
		if err != nil || mebibytes == 0 {
			continue
		}

		out = addDIMM(out, strings.TrimSpace(dimm.line("dimm_mem_type")), mebibytes<<20)
	}

	return out
}

func addDIMM(all []DIMMs, kind string, bytes uint64) []DIMMs {
	for i := range all {
		if all[i].Type == kind {
			all[i].Count++
			all[i].Bytes += bytes
			return all
		}
	}
	return append(all, DIMMs{Type: kind, Count: 1, Bytes: bytes})
}

// HugePageBytes returns the memory that is set aside for huge pages of any size, whether they are used or
// not.
func (m Machine) HugePageBytes() uint64 {
	pages := v1.ResourceList{}
	m.addHugePages(pages)

	var sum int64
	for _, bytes := range pages {
		sum += bytes.Value()
	}

	return uint64(sum)
}
