package bench

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// Memory of the processes of one program.
type Memory struct {
	Processes int

	// RSS, in KiB, counts shared pages once for each process; PSS divides them among those who share them.
	RSS int
	PSS int
}

// Plus is the memory of both.
func (m Memory) Plus(other Memory) Memory {
	return Memory{
		Processes: m.Processes + other.Processes,
		RSS:       m.RSS + other.RSS,
		PSS:       m.PSS + other.PSS,
	}
}

// MemoryOf reads /proc; a process that ends meanwhile counts nothing.
func MemoryOf(pids []int) Memory {
	m := Memory{Processes: len(pids)}
	for _, pid := range pids {
		data, _ := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
		for line := range strings.Lines(string(data)) {
			fields := strings.Fields(line)
			if len(fields) < 2 {
				continue
			}

			n, _ := strconv.Atoi(fields[1])
			switch fields[0] {
			case "Rss:":
				m.RSS += n
			case "Pss:":
				m.PSS += n
			}
		}
	}

	return m
}
