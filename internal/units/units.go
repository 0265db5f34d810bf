// Package units writes numbers of bytes for people, in the units of Kubernetes: 512Mi, 1.5Gi.
package units

import "strconv"

// Bytes returns a number of bytes with three digits or so.
func Bytes(n int64) string {
	if n < 0 {
		return "-" + Bytes(-n)
	}

	value, unit := float64(n), ""
	for _, next := range []string{"Ki", "Mi", "Gi", "Ti", "Pi", "Ei"} {
		if value < 1024 {
			break
		}
		value, unit = value/1024, next
	}

	precision := 1
	if value >= 100 || value == float64(int64(value)) {
		precision = 0
	}
	return strconv.FormatFloat(value, 'f', precision, 64) + unit
}
