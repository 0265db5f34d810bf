package cgroup

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// PageSizes returns the sizes of huge pages that the kernel has, by the names that are in its files ("2MB",
// "1GB").
func PageSizes() ([]string, error) {
	dirs, err := filepath.Glob("/sys/kernel/mm/hugepages/hugepages-*kB")
	if err != nil {
		return nil, err
	}

	var out []string
	for _, d := range dirs {
		if size, ok := sizeOf(d); ok {
			out = append(out, size)
		}
	}

	return out, nil
}

// sizeOf returns the name of a size by its directory in sysfs.
func sizeOf(dir string) (string, bool) {
	text := strings.TrimSuffix(strings.TrimPrefix(filepath.Base(dir), "hugepages-"), "kB")
	kib, err := strconv.ParseUint(text, 10, 54)
	return PageSize(kib << 10), err == nil
}

// PageSize returns the kernel's name of a page size in bytes (mem_fmt in its hugetlb controller).
func PageSize(bytes uint64) string {
	switch {
	case bytes >= 1<<30:
		return strconv.FormatUint(bytes>>30, 10) + "GB"
	case bytes >= 1<<20:
		return strconv.FormatUint(bytes>>20, 10) + "MB"
	}
	return strconv.FormatUint(bytes>>10, 10) + "KB"
}

// CountsHugePages reports whether the readers of this host count huge pages: the controller is there, and the
// machine had pages, or was allowed to make some, when the host was opened.
func (h *Host) CountsHugePages() bool { return len(h.pageSizes) > 0 && h.Controller("hugetlb") }

// reserved returns the sizes of huge pages of which the machine has some, or may make some.
func reserved() []string {
	dirs, err := filepath.Glob("/sys/kernel/mm/hugepages/hugepages-*kB")
	if err != nil {
		return nil
	}

	var sizes []string
	for _, dir := range dirs {
		size, ok := sizeOf(dir)
		if ok && (positive(dir+"/nr_hugepages") || positive(dir+"/nr_overcommit_hugepages")) {
			sizes = append(sizes, size)
		}
	}

	return sizes
}

func positive(file string) bool {
	text, err := os.ReadFile(file)
	if err != nil {
		return false
	}
	n, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64)
	return err == nil && n > 0
}
