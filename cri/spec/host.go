package spec

import (
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Probe finds out what the machine can do. Devices are left empty.
func Probe(cgroupV2 bool) Host {
	h := Host{CgroupV2: cgroupV2, OOMScoreMin: -1000}
	status, _ := os.ReadFile("/proc/self/status")
	for line := range strings.Lines(string(status)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		switch value = strings.TrimSpace(value); key {
		case "CapBnd":
			bits, _ := strconv.ParseUint(value, 16, 64)
			for n, name := range Names {
				if bits&(1<<n) != 0 {
					h.Capabilities = append(h.Capabilities, name)
				}
			}

			// nobody may then go below his own score
			if bits&(1<<unix.CAP_SYS_RESOURCE) == 0 {
				own, _ := os.ReadFile("/proc/self/oom_score_adj")
				h.OOMScoreMin, _ = strconv.Atoi(strings.TrimSpace(string(own)))
			}

		case "Seccomp":
			h.Seccomp = true
		}
	}

	enabled, _ := os.ReadFile("/sys/module/apparmor/parameters/enabled")
	h.AppArmor = strings.HasPrefix(string(enabled), "Y")
	_, err := os.Stat("/sys/fs/selinux/enforce")
	h.SELinux = err == nil
	return h
}
