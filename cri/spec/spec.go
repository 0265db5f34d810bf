// Package spec turns a CRI container into an OCI runtime spec (config.json). What it needs of the machine and
// of the image comes in Config, so that equal configurations give equal specs. There is one exception: the
// default seccomp profile depends on the version of the kernel, which moby/profiles asks for itself
// (uname(2)).
package spec

import (
	"cmp"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	imagespec "github.com/opencontainers/image-spec/specs-go/v1"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/trivet-node/trivet/cri/account"
	"github.com/trivet-node/trivet/internal/namespace"
)

// Host is what the machine can do, and what this process may do on it.
type Host struct {
	Capabilities []string // that containers can be given, as in linux/capability.h
	OOMScoreMin  int      // lowest oom_score_adj that can be set
	CgroupV2     bool
	HugePages    bool // can be limited
	Swap         bool // can be limited beside memory, by a file of cgroup v2
	Seccomp      bool
	AppArmor     bool
	SELinux      bool
	Hostname     string // of a pod that has none of its own
}

// Config is everything that Generate needs.
type Config struct {
	ID        string
	Container *runtimeapi.ContainerConfig
	Sandbox   *runtimeapi.PodSandboxConfig
	Image     imagespec.ImageConfig
	Rootfs    string
	User      account.User
	Host      Host

	// Namespaces are those to join, by path; an empty path is a new one. A kind that is not here is the
	// host's.
	Namespaces map[specs.LinuxNamespaceType]string

	// Users is the pod's user namespace, which is among Namespaces; nil is the host's.
	Users *namespace.Users

	CgroupsPath string

	// Files are mounts that the pod and the image give: resolv.conf, /dev/shm, volumes...
	Files []specs.Mount

	// ImageMounts are the host directories of image mounts, by their paths in the container.
	ImageMounts map[string]string

	// MappedMounts are where volumes are that show as those of Users, by their paths in the container.
	MappedMounts map[string]string

	// Devices are those of the machine that each device of Container stands for, by its path on the host,
	// where a directory stands for all below it. A privileged container has those at "/dev", too.
	Devices map[string][]specs.LinuxDevice

	// Localhost is the seccomp profile of a container that asks for one of the node.
	Localhost []byte

	// AppArmor is the name of a profile that the kernel has; "" is none.
	AppArmor string

	// CgroupAnnotations are those of the cgroup driver for the OCI runtime.
	CgroupAnnotations map[string]string

	// AllowedAnnotations are patterns of names: what matches one goes from the pod and the container to the
	// OCI runtime.
	AllowedAnnotations []string
}

// Generate returns the spec of a container. An error names what the container asks for that cannot be done.
func Generate(cfg Config) (*specs.Spec, error) {
	s, err := generate(cfg)
	if err != nil {
		return nil, fmt.Errorf("container %s: %w", cfg.ID, err)
	}
	return s, nil
}

func generate(cfg Config) (*specs.Spec, error) {
	if cfg.Container == nil || cfg.Sandbox == nil {
		return nil, errors.New("no configuration")
	}
	if len(cfg.Container.CDIDevices) > 0 {
		return nil, fmt.Errorf("CDI device %s: CDI is not supported", cfg.Container.CDIDevices[0].Name)
	}

	linux := cfg.Container.GetLinux()
	security := linux.GetSecurityContext()

	process, err := processOf(cfg)
	if err != nil {
		return nil, err
	}

	s := &specs.Spec{
		Version:     "1.0.2",
		Process:     process,
		Root:        &specs.Root{Path: cfg.Rootfs, Readonly: security.GetReadonlyRootfs()},
		Annotations: annotations(cfg),
		Linux: &specs.Linux{
			CgroupsPath: cfg.CgroupsPath,
			Namespaces:  namespaces(cfg),
			Resources:   Resources(InForce(linux.GetResources(), cfg.Host), cfg.Host),
		},
	}

	// A privileged container sees all of /proc and /sys.
	if !security.GetPrivileged() {
		s.Linux.MaskedPaths = security.GetMaskedPaths()
		s.Linux.ReadonlyPaths = security.GetReadonlyPaths()
	}

	// The order matters only for confine: the default seccomp profile depends on the capabilities.
	if err := devices(s, cfg); err != nil {
		return nil, err
	}
	if err := mounts(s, cfg); err != nil {
		return nil, err
	}
	if err := confine(s, cfg); err != nil {
		return nil, err
	}
	if err := users(s, cfg.Users); err != nil {
		return nil, err
	}

	return s, checkPaths(s)
}

func processOf(cfg Config) (*specs.Process, error) {
	security := cfg.Container.GetLinux().GetSecurityContext()
	args, err := command(cfg)
	if err != nil {
		return nil, err
	}

	caps, err := capabilities(security, cfg.Host.Capabilities)
	if err != nil {
		return nil, err
	}

	adj := max(int(cfg.Container.GetLinux().GetResources().GetOomScoreAdj()), cfg.Host.OOMScoreMin)
	p := &specs.Process{
		Terminal:        cfg.Container.Tty,
		Args:            args,
		Env:             environment(cfg),
		Cwd:             workingDir(cfg),
		User:            cfg.User.User,
		Capabilities:    caps,
		NoNewPrivileges: security.GetNoNewPrivs(),
		OOMScoreAdj:     &adj,
	}

	return p, checkText(p.Args, p.Env, p.Cwd)
}

// CheckArgs returns an error for a command with an argument that the kernel would cut short.
func CheckArgs(args []string) error { return checkText(args, nil, "") }

// command follows the rule of Kubernetes: command replaces the image's entry point and command, args only the
// latter.
func command(cfg Config) ([]string, error) {
	entry, args := cfg.Container.Command, cfg.Container.Args
	if len(entry) == 0 {
		entry = cfg.Image.Entrypoint

		// With an empty string, a Dockerfile removes the entry point of its base.
		if len(entry) == 1 && entry[0] == "" {
			entry = nil
		}
		if len(args) == 0 {
			args = cfg.Image.Cmd
		}
	}

	all := slices.Concat(entry, args)
	if len(all) == 0 {
		return nil, fmt.Errorf("no command: neither the pod nor image %s names one",
			cfg.Container.GetImage().GetImage())
	}

	return all, nil
}

func workingDir(cfg Config) string {
	for _, dir := range []string{cfg.Container.WorkingDir, cfg.Image.WorkingDir} {
		if dir != "" {
			return path.Join("/", dir)
		}
	}
	return "/"
}

// environment returns the defaults, then the image's variables, then the container's. A later value replaces
// an earlier one in its place.
func environment(cfg Config) []string {
	all := []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	if cfg.Container.Tty {
		all = append(all, "TERM=xterm")
	}
	if h := cmp.Or(cfg.Sandbox.GetHostname(), cfg.Host.Hostname); h != "" {
		all = append(all, "HOSTNAME="+h)
	}
	if cfg.User.Home != "" {
		all = append(all, "HOME="+cfg.User.Home)
	}

	all = append(all, cfg.Image.Env...)
	for _, kv := range cfg.Container.Envs {
		all = append(all, kv.Key+"="+string(kv.Value))
	}

	return lastValues(all)
}

// lastValues leaves of each variable the last value, in the place of the first.
func lastValues(pairs []string) []string {
	var env []string
	index := map[string]int{}
	for _, pair := range pairs {
		name, _, _ := strings.Cut(pair, "=")
		if i, ok := index[name]; ok {
			env[i] = pair
			continue
		}

		index[name] = len(env)
		env = append(env, pair)
	}

	return env
}

func namespaces(cfg Config) []specs.LinuxNamespace {
	var all []specs.LinuxNamespace
	for _, kind := range []specs.LinuxNamespaceType{
		specs.UserNamespace,
		specs.NetworkNamespace,
		specs.IPCNamespace,
		specs.UTSNamespace,
		specs.PIDNamespace,
		specs.CgroupNamespace,
	} {
		if p, ok := cfg.Namespaces[kind]; ok {
			all = append(all, specs.LinuxNamespace{Type: kind, Path: p})
		}
	}

	return append(all, specs.LinuxNamespace{Type: specs.MountNamespace})
}
