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
	v1 "k8s.io/api/core/v1"

	"github.com/trivet-node/trivet/internal/kube/event"
	"github.com/trivet-node/trivet/internal/mount"
	"github.com/trivet-node/trivet/internal/program"
	"github.com/trivet-node/trivet/node/config"
	"github.com/trivet-node/trivet/node/machine"
	"github.com/trivet-node/trivet/node/nodestatus"
	"github.com/trivet-node/trivet/node/swap"
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

// swapPolicy is how much containers may swap on a machine with so much memory. bounds means that the kernel
// can limit it, and limited that the configuration has LimitedSwap.
func swapPolicy(memory machine.Memory, bounds, limited, cgroupV2 bool) swap.Policy {
	// On cgroup v1 containers are limited only where there is swap: the limit is of memory as well, and
	// stands in the way when that is raised.
	return swap.Policy{
		Bounded:  bounds && (cgroupV2 || memory.Swap > 0),
		Limited:  limited && cgroupV2,
		Memory:   memory.Total,
		Capacity: memory.Swap,
	}
}

// warnOfSwap says, as kubelet does, that what is to stay in memory may reach the disk: the kernel (before
// 6.4) swaps tmpfs.
func warnOfSwap(s *surroundings, events nodestatus.Events) {
	area, err := s.machine.Swap()
	if err != nil || area == "" || mount.KeepsTmpfsInMemory() {
		return
	}

	s.log.Warn("memory-backed volumes may be swapped to disk: the kernel has no tmpfs noswap",
		slog.String("swap", area))
	events.Record(event.Node(s.cfg.NodeName), v1.EventTypeWarning, "PossibleMemoryBackedVolumesOnDisk",
		"The tmpfs noswap option is not supported. Memory-backed volumes (e.g. secrets, emptyDirs, etc.) "+
			"might be swapped to disk and should no longer be considered secure.")
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
