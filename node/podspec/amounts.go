package podspec

import (
	"fmt"
	"strconv"
	"strings"

	v1 "k8s.io/api/core/v1"
)

// Amounts are the resources of a container that can be changed while it runs. CPU is in thousandths of a CPU,
// memory in bytes; 0 is none.
type Amounts struct {
	CPURequest    int64
	CPULimit      int64
	MemoryRequest int64
	MemoryLimit   int64
}

// AmountsOf returns the amounts of a container as they come into force: a limit of the pod as a whole is that
// of each container that has none itself.
func AmountsOf(pod *v1.Pod, c *v1.Container) Amounts {
	cpu, memory := Limit(pod, c, v1.ResourceCPU), Limit(pod, c, v1.ResourceMemory)
	return Amounts{
		CPURequest:    c.Resources.Requests.Cpu().MilliValue(),
		CPULimit:      cpu.MilliValue(),
		MemoryRequest: c.Resources.Requests.Memory().Value(),
		MemoryLimit:   memory.Value(),
	}
}

// String returns the amounts as ParseAmounts reads them: each request before its limit.
func (a Amounts) String() string {
	return fmt.Sprintf("cpu=%d/%d memory=%d/%d", a.CPURequest, a.CPULimit, a.MemoryRequest, a.MemoryLimit)
}

// ParseAmounts reads what String has written. It reports false for any other text.
func ParseAmounts(text string) (a Amounts, ok bool) {
	cpu, memory, _ := strings.Cut(strings.TrimPrefix(text, "cpu="), " memory=")
	a.CPURequest, a.CPULimit = pair(cpu)
	a.MemoryRequest, a.MemoryLimit = pair(memory)
	if a.String() != text {
		return Amounts{}, false
	}
	return a, true
}

// pair reads "1/2". What is not a number is 0.
func pair(text string) (request, limit int64) {
	first, second, _ := strings.Cut(text, "/")
	request, _ = strconv.ParseInt(first, 10, 64)
	limit, _ = strconv.ParseInt(second, 10, 64)
	return request, limit
}
