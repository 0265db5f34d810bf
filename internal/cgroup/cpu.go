package cgroup

import "math"

// The kernel's bounds of cpu.shares, and of a quota in microseconds.
const (
	minShares = 2
	maxShares = 262144
	minQuota  = 1000
)

// Shares converts thousandths of a CPU that are requested to v1 cpu.shares: 1024 for each CPU, within the
// kernel's bounds.
func Shares(milliCPU int64) uint64 {
	return uint64(min(max(milliCPU*1024/1000, minShares), maxShares))
}

// Quota converts a limit in thousandths of a CPU to microseconds of each DefaultPeriod. No limit (0) is no
// quota (0).
func Quota(milliCPU int64) int64 {
	if milliCPU == 0 {
		return 0
	}
	return max(milliCPU*DefaultPeriod/1000, minQuota)
}

// MilliCPUOfShares is the inverse of Shares: thousandths of a CPU, 0 for less than the kernel's least.
func MilliCPUOfShares(shares int64) int64 {
	if shares < minShares {
		return 0
	}
	return (shares*1000 + 1023) / 1024
}

// MilliCPUOfQuota is the inverse of Quota, for any period in microseconds: thousandths of a CPU, 0 for no
// limit.
func MilliCPUOfQuota(quota, period int64) int64 {
	if quota <= 0 || period <= 0 {
		return 0
	}
	return quota * 1000 / period
}

// Weight converts v1 cpu.shares (2..262144) to v2 cpu.weight (1..10000) as OCI runtimes and kubelet do since
// 2025: by a curve through 2 -> 1, 1024 -> 100 and 262144 -> 10000, so that one CPU's shares are the kernel's
// default weight.
func Weight(shares uint64) uint64 {
	switch {
	case shares == 0:
		return 0
	case shares <= minShares:
		return 1
	case shares >= maxShares:
		return 10000
	}
	l := math.Log2(float64(shares))
	return uint64(math.Ceil(math.Pow(10, (l*l+125*l)/612-7.0/34)))
}
