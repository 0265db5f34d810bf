package agent

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/internal/program"
	"github.com/trivet-node/trivet/node/config"
	"github.com/trivet-node/trivet/node/machine"
)

// checkMachine ends the start on a machine that the configuration does not accept.
func checkMachine(cfg config.Config, cgroupV2 bool, m machine.Machine) error {
	if cfg.Machine.NoCgroupV1 && !cgroupV2 {
		return &program.CantRunError{
			What: "this machine has cgroup v1",
			Do:   "boot it with cgroup v2, or set failCgroupV1: false",
		}
	}

	if cfg.Machine.NeedsGroupKills && !cgroupV2 {
		return &program.CantRunError{
			What: "singleProcessOOMKill: false needs cgroup v2",
			Do:   "boot the machine with it, or leave the field out",
		}
	}

	if cfg.Machine.NoSwap {
		area, err := m.Swap()
		if err != nil {
			return err
		}

		if area != "" {
			return &program.CantRunError{
				What: fmt.Sprintf("swap is on (%s)", area),
				Do:   "switch it off, or set failSwapOn: false",
			}
		}
	}

	if _, err := shareOfPods(cfg, m); err != nil {
		return err
	}
	if cfg.Machine.KernelDefaults {
		return checkKernel(m)
	}

	return nil
}

// memoryAndSwap is where a kernel with cgroup v1 limits swap, if it can.
const memoryAndSwap = "/sys/fs/cgroup/memory/memory.memsw.limit_in_bytes"

// forbidSwap reports whether containers could swap and can be kept from it: on cgroup v1 the kernel may not
// count it.
func forbidSwap(m machine.Machine, cgroupV2 bool) bool {
	area, err := m.Swap()
	if err != nil || area == "" {
		return false
	}
	_, err = os.Stat(memoryAndSwap)
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

func checkKernel(m machine.Machine) error {
	var wrong []string
	for name, want := range kernelDefaults {
		have, err := m.KernelParameter(name)
		if err != nil {
			return err
		}

		if have != want {
			dotted := strings.ReplaceAll(name, "/", ".")
			wrong = append(wrong, fmt.Sprintf("%s is %s, not %s", dotted, have, want))
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
func setProcess(p config.Process, log *slog.Logger) {
	if err := setOOMScore("/proc/self/oom_score_adj", p.OOMScoreAdj); err != nil {
		log.Info("the agent's OOM score stays", "want", p.OOMScoreAdj, "err", err)
	}
	if err := setOpenFiles(p.MaxOpenFiles); err != nil {
		log.Info("the agent's limit of open files stays", "want", p.MaxOpenFiles, "err", err)
	}
}

func setOOMScore(path string, score int) error {
	return os.WriteFile(path, []byte(strconv.Itoa(score)), 0)
}

// setOpenFiles sets both limits, or the soft one alone as far as the hard one allows. Zero changes nothing.
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
func checkFiles(api config.API) error {
	if path := api.ClientCAFile; path != "" {
		pem, err := os.ReadFile(path)
		if err == nil && !x509.NewCertPool().AppendCertsFromPEM(pem) {
			err = fmt.Errorf("%s holds no certificate", filepath.Clean(path))
		}
		if err != nil {
			return &program.UsageError{Err: fmt.Errorf("authentication.x509.clientCAFile: %w", err)}
		}
	}

	if api.CertFile != "" {
		if _, err := tls.LoadX509KeyPair(api.CertFile, api.KeyFile); err != nil {
			return &program.UsageError{Err: fmt.Errorf("tlsCertFile, tlsPrivateKeyFile: %w", err)}
		}
	}

	return nil
}
