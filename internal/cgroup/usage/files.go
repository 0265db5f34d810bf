package usage

// controller is one of those that count something.
type controller int

const (
	cpuacct controller = iota
	cpu
	memory
	pids
	blkio
	hugetlb
	controllers
)

var controllerNames = [controllers]string{"cpuacct", "cpu", "memory", "pids", "blkio", "hugetlb"}

// counterFile is a file that is read.
type counterFile int

const (
	cpuacctUsage counterFile = iota
	cpuacctStat
	cpuStatV1
	memoryUsage
	memoryLimit
	memoryStatV1
	memoryPeakV1
	memoryHits
	memoryKernel
	memoryOOM
	pidsCurrentV1
	pidsMaxV1
	blkioBytes
	blkioRequests
	procsV1

	cpuStatV2
	cpuPressure
	memoryCurrent
	memoryMax
	memoryStatV2
	memorySwap
	memorySwapMax
	memorySwapMaxBelow
	memoryPressure
	memoryPeakV2
	memoryEvents
	pidsCurrentV2
	pidsMaxV2
	ioPressure
	ioStat
	procsV2
	counterFiles
)

// table has the files: hot ones are read for every detail.
var table = [counterFiles]struct {
	controller controller
	name       string
	hot        bool
}{
	cpuacctUsage:  {cpuacct, "cpuacct.usage", true},
	cpuacctStat:   {cpuacct, "cpuacct.stat", false},
	cpuStatV1:     {cpu, "cpu.stat", false},
	memoryUsage:   {memory, "memory.usage_in_bytes", true},
	memoryLimit:   {memory, "memory.limit_in_bytes", true},
	memoryStatV1:  {memory, "memory.stat", true},
	memoryPeakV1:  {memory, "memory.max_usage_in_bytes", false},
	memoryHits:    {memory, "memory.failcnt", false},
	memoryKernel:  {memory, "memory.kmem.usage_in_bytes", false},
	memoryOOM:     {memory, "memory.oom_control", false},
	pidsCurrentV1: {pids, "pids.current", true},
	pidsMaxV1:     {pids, "pids.max", false},
	blkioBytes:    {blkio, "blkio.throttle.io_service_bytes_recursive", false},
	blkioRequests: {blkio, "blkio.throttle.io_serviced_recursive", false},
	procsV1:       {cpu, "cgroup.procs", false},

	cpuStatV2:     {cpu, "cpu.stat", true},
	cpuPressure:   {cpu, "cpu.pressure", true},
	memoryCurrent: {memory, "memory.current", true},
	memoryMax:     {memory, "memory.max", true},
	memoryStatV2:  {memory, "memory.stat", true},
	memorySwap:    {memory, "memory.swap.current", true},
	memorySwapMax: {memory, "memory.swap.max", true},

	// What is asked for by file is in crun's group alone.
	memorySwapMaxBelow: {memory, CrunGroup + "/memory.swap.max", true},

	memoryPressure: {memory, "memory.pressure", true},
	memoryPeakV2:   {memory, "memory.peak", false},
	memoryEvents:   {memory, "memory.events", false},
	pidsCurrentV2:  {pids, "pids.current", true},
	pidsMaxV2:      {pids, "pids.max", false},
	ioPressure:     {blkio, "io.pressure", true},
	ioStat:         {blkio, "io.stat", false},
	procsV2:        {cpu, "cgroup.procs", false},
}

// hotFiles is the number of hot files that a group of either version has at most.
const hotFiles = 11
