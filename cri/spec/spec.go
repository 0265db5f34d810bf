// Package spec turns a CRI container into an OCI runtime spec. It is pure: what it needs of the machine and
// of the image comes in Config.
package spec

import (
	"fmt"
	"path"
	"strings"

	imagespec "github.com/opencontainers/image-spec/specs-go/v1"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/trivet-node/trivet/cri/account"
)

// Host is what the machine can and may do.
type Host struct {
	Capabilities []string // that the server holds, so that it may give them; CAP_ names
	OOMScoreMin  int      // lowest oom_score_adj that can be set
	CgroupV2     bool
	Seccomp      bool
	AppArmor     bool
	SELinux      bool
	Hostname     string              // of a pod that has none of its own
	Devices      []specs.LinuxDevice // host devices, for privileged containers
}

// Config is everything that Generate needs.
type Config struct {
	ID        string
	Container *runtimeapi.ContainerConfig
	Sandbox   *runtimeapi.PodSandboxConfig
	Image     imagespec.ImageConfig
	Rootfs    string
	User      account.User
	// path to join; a kind that is not here is the host's, an empty path a new one
	Namespaces  map[specs.LinuxNamespaceType]string
	CgroupsPath string
	Files       []specs.Mount     // what the pod and the image give: resolv.conf, /dev/shm, volumes...
	ImageMounts map[string]string // container path of an image mount -> host directory
	Localhost   []byte            // seccomp profile when the container asks for Localhost
	AppArmor    string            // profile, which the kernel has
	Host        Host

	// CgroupAnnotations are those of the cgroup driver for the OCI runtime.
	CgroupAnnotations map[string]string
	// AllowedAnnotations are patterns of names: what matches one goes from the pod and the container to the
	// OCI runtime.
	AllowedAnnotations []string
}

// Generate makes the spec.
func Generate(cfg Config) (*specs.Spec, error) {
	if cfg.Container == nil || cfg.Sandbox == nil {
		return nil, fmt.Errorf("container %s: no configuration", cfg.ID)
	}

	if len(cfg.Container.CDIDevices) > 0 {
		return nil, fmt.Errorf("container %s: CDI device %s: CDI is not supported",
			cfg.ID, cfg.Container.CDIDevices[0].Name)
	}

	args, err := command(cfg)
	if err != nil {
		return nil, err
	}

	security := cfg.Container.GetLinux().GetSecurityContext()
	caps, err := capabilities(security, cfg.Host.Capabilities)
	if err != nil {
		return nil, fmt.Errorf("container %s: %w", cfg.ID, err)
	}

	s := &specs.Spec{
		Version: "1.0.2",
		Process: &specs.Process{
			Terminal:        cfg.Container.Tty,
			Args:            args,
			Env:             environment(cfg),
			Cwd:             workingDir(cfg),
			User:            cfg.User.User,
			Capabilities:    caps.of(cfg.User.UID),
			NoNewPrivileges: security.GetNoNewPrivs(),
		},
		Root:        &specs.Root{Path: cfg.Rootfs, Readonly: security.GetReadonlyRootfs()},
		Annotations: annotations(cfg),
		Linux: &specs.Linux{
			CgroupsPath: cfg.CgroupsPath, Namespaces: namespaces(cfg), Resources: Resources(
				cfg.Container.GetLinux().GetResources(),
				cfg.Host.CgroupV2,
			),
		},
	}
	if err := checkText(s.Process.Args, s.Process.Env, s.Process.Cwd); err != nil {
		return nil, fmt.Errorf("container %s: %w", cfg.ID, err)
	}

	adj := max(int(cfg.Container.GetLinux().GetResources().GetOomScoreAdj()), cfg.Host.OOMScoreMin)
	s.Process.OOMScoreAdj = &adj
	if err := devices(s, cfg); err != nil {
		return nil, fmt.Errorf("container %s: %w", cfg.ID, err)
	}
	if err := mounts(s, cfg); err != nil {
		return nil, fmt.Errorf("container %s: %w", cfg.ID, err)
	}
	if !security.GetPrivileged() {
		s.Linux.MaskedPaths, s.Linux.ReadonlyPaths = security.GetMaskedPaths(), security.GetReadonlyPaths()
	}
	if err := confine(s, cfg); err != nil {
		return nil, fmt.Errorf("container %s: %w", cfg.ID, err)
	}
	if err := checkPaths(s); err != nil {
		return nil, fmt.Errorf("container %s: %w", cfg.ID, err)
	}

	return s, nil
}

// CheckArgs refuses a command whose arguments the kernel would cut short.
func CheckArgs(args []string) error { return checkText(args, nil, "") }

// command follows the rule of Kubernetes: command replaces the image's entry point and command, args only the
// latter.
func command(cfg Config) ([]string, error) {
	entry, args := cfg.Container.Command, cfg.Container.Args
	if len(entry) == 0 {
		entry = cfg.Image.Entrypoint

		// so a Dockerfile takes back that of its base
		if len(entry) == 1 && entry[0] == "" {
			entry = nil
		}
		if len(args) == 0 {
			args = cfg.Image.Cmd
		}
	}

	all := append(append([]string{}, entry...), args...)
	if len(all) == 0 {
		return nil, fmt.Errorf("container %s: no command: neither the pod nor image %s names one",
			cfg.ID, cfg.Container.GetImage().GetImage())
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

// environment is the image's, then the container's; a later value replaces an earlier one in place.
func environment(cfg Config) []string {
	env, at := []string{}, map[string]int{}
	set := func(pair string) {
		name, _, _ := strings.Cut(pair, "=")
		if i, ok := at[name]; ok {
			env[i] = pair
			return
		}

		at[name] = len(env)
		env = append(env, pair)
	}

	set("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
	if cfg.Container.Tty {
		set("TERM=xterm")
	}

	if h := cfg.Sandbox.GetHostname(); h != "" {
		set("HOSTNAME=" + h)
	} else if cfg.Host.Hostname != "" {
		set("HOSTNAME=" + cfg.Host.Hostname)
	}

	if cfg.User.Home != "" {
		set("HOME=" + cfg.User.Home)
	}

	for _, pair := range cfg.Image.Env {
		set(pair)
	}

	for _, kv := range cfg.Container.Envs {
		set(kv.Key + "=" + string(kv.Value))
	}

	return env
}

func namespaces(cfg Config) []specs.LinuxNamespace {
	var all []specs.LinuxNamespace
	for _, kind := range []specs.LinuxNamespaceType{
		specs.NetworkNamespace, specs.IPCNamespace, specs.UTSNamespace, specs.PIDNamespace,
		specs.CgroupNamespace,
	} {
		if p, ok := cfg.Namespaces[kind]; ok {
			all = append(all, specs.LinuxNamespace{Type: kind, Path: p})
		}
	}
	return append(all, specs.LinuxNamespace{Type: specs.MountNamespace})
}
