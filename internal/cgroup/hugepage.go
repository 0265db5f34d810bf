package cgroup

import (
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
		text := strings.TrimSuffix(strings.TrimPrefix(filepath.Base(d), "hugepages-"), "kB")
		kib, err := strconv.ParseUint(text, 10, 54)
		if err != nil {
			continue
		}

		out = append(out, PageSize(kib<<10))
	}

	return out, nil
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
