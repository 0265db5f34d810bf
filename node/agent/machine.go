package agent

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/internal/program"
	"github.com/trivet-node/trivet/node/kubeletconfig"
)

// checkMachine ends the start on a machine that the configuration does not accept.
func checkMachine(k *kubeletconfig.Configuration, cgroupV2 bool, proc string) error {
	if *k.FailCgroupV1 && !cgroupV2 {
		return &program.CantRunError{What: "this machine has cgroup v1",
			Do: "boot it with cgroup v2, or set failCgroupV1: false"}
	}

	if k.SingleProcessOOMKill != nil && !*k.SingleProcessOOMKill && !cgroupV2 {
		return &program.CantRunError{
			What: "singleProcessOOMKill: false needs cgroup v2",
			Do:   "boot the machine with it, or leave the field out",
		}
	}

	if *k.FailSwapOn {
		if err := checkSwap(filepath.Join(proc, "swaps")); err != nil {
			return err
		}
	}

	if _, err := shareOfPods(k); err != nil {
		return err
	}
	if k.ProtectKernelDefaults {
		return checkKernel(filepath.Join(proc, "sys"))
	}

	return nil
}

func checkSwap(path string) error {
	area, err := swapArea(path)
	if err != nil || area == "" {
		return err
	}
	return &program.CantRunError{
		What: fmt.Sprintf("swap is on (%s)", area),
		Do:   "switch it off, or set failSwapOn: false",
	}
}

// swapArea is the first area of /proc/swaps (proc(5)): a line of titles, then one for each area. Empty:
// swap is off.
func swapArea(path string) (string, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		// the kernel has no swap
		return "", nil
	}

	if err != nil {
		return "", fmt.Errorf("swap of the machine: %w", err)
	}

	_, areas, _ := strings.Cut(string(data), "\n")
	if fields := strings.Fields(areas); len(fields) > 0 {
		return fields[0], nil
	}

	return "", nil
}

// swapToForbid reports whether containers could swap and can be kept from it: on cgroup v1 the kernel may not
// count it.
func swapToForbid(cgroupV2 bool) bool {
	area, err := swapArea("/proc/swaps")
	if err != nil || area == "" {
		return false
	}
	_, err = os.Stat("/sys/fs/cgroup/memory/memory.memsw.limit_in_bytes")
	return cgroupV2 || err == nil
}

// kernelDefaults are the parameters that kubelet wants.
var kernelDefaults = map[string]string{
	"kernel/keys/root_maxbytes": "25000000",
	"kernel/keys/root_maxkeys":  "1000000",
	"kernel/panic":              "10",
	"kernel/panic_on_oops":      "1",
	"vm/overcommit_memory":      "1",
	"vm/panic_on_oom":           "0",
}

func checkKernel(sys string) error {
	var wrong []string
	for name, want := range kernelDefaults {
		data, err := os.ReadFile(filepath.Join(sys, name))
		if err != nil {
			return fmt.Errorf("kernel parameter: %w", err)
		}

		if have := strings.TrimSpace(string(data)); have != want {
			wrong = append(wrong, fmt.Sprintf("%s is %s, not %s", strings.ReplaceAll(name, "/", "."), have,
				want))
		}
	}

	if len(wrong) == 0 {
		return nil
	}

	slices.Sort(wrong)
	return &program.CantRunError{
		What: "protectKernelDefaults: " + strings.Join(wrong, ", "),
		Do:   "set them with sysctl(8), or set protectKernelDefaults: false",
	}
}

// setProcess gives the process what the configuration says. What the kernel does not allow is worth a line
// only: such a node works, as it is not root in the machine's own user namespace.
func setProcess(k *kubeletconfig.Configuration, log *slog.Logger) {
	if err := setOOMScore("/proc/self/oom_score_adj", *k.OOMScoreAdj); err != nil {
		log.Info("the agent's OOM score stays", "want", *k.OOMScoreAdj, "err", err)
	}
	if err := setOpenFiles(uint64(k.MaxOpenFiles)); err != nil {
		log.Info("the agent's limit of open files stays", "want", k.MaxOpenFiles, "err", err)
	}
}

func setOOMScore(path string, score int32) error {
	return os.WriteFile(path, []byte(strconv.Itoa(int(score))), 0)
}

// setOpenFiles sets both limits, or the soft one alone as far as the hard one allows.
func setOpenFiles(most uint64) error {
	if most == 0 {
		return nil
	}

	err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: most, Max: most})
	if err == nil {
		return nil
	}

	var now unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &now) == nil {
		now.Cur = min(most, now.Max)
		_ = unix.Setrlimit(unix.RLIMIT_NOFILE, &now)
	}

	return fmt.Errorf("set limit of open files: %w", err)
}

// checkFiles ends the start where a file that the configuration names is not what it should be: without the
// CA no client of the agent's API could be told from another, without the certificate there is no API.
func checkFiles(k *kubeletconfig.Configuration) error {
	if path := k.Authentication.X509.ClientCAFile; path != "" {
		pem, err := os.ReadFile(path)
		if err == nil && !x509.NewCertPool().AppendCertsFromPEM(pem) {
			err = fmt.Errorf("%s holds no certificate", path)
		}
		if err != nil {
			return &program.UsageError{Err: fmt.Errorf("authentication.x509.clientCAFile: %w", err)}
		}
	}

	if k.TLSCertFile != "" {
		if _, err := tls.LoadX509KeyPair(k.TLSCertFile, k.TLSPrivateKeyFile); err != nil {
			return &program.UsageError{Err: fmt.Errorf("tlsCertFile, tlsPrivateKeyFile: %w", err)}
		}
	}

	return nil
}
