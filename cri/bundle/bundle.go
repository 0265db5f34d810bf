// Package bundle makes the OCI bundles of containers: root file system, volumes and config.json. It reads and
// mounts what cri/spec, which generates the config.json, does not look at. What it makes belongs to the
// caller, who has noted its IDs before and releases it in the end, also after an error.
package bundle

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/trivet-node/trivet/cri/account"
	"github.com/trivet-node/trivet/cri/apparmor"
	"github.com/trivet-node/trivet/cri/cgroupdriver"
	"github.com/trivet-node/trivet/cri/host"
	"github.com/trivet-node/trivet/cri/image"
	"github.com/trivet-node/trivet/cri/spec"
	"github.com/trivet-node/trivet/internal/namespace"
)

// Rootfs mounts root file systems of images by ID.
type Rootfs interface {
	Prepare(ctx context.Context, id string, img image.Image, users *namespace.Users) (path string, err error)

	PrepareReadOnly(
		ctx context.Context, id string, img image.Image, users *namespace.Users,
	) (path string, err error)

	// Volume makes a volume that an image declares at a path, and returns where its files are and where it
	// is to be mounted, with symbolic links of the image followed.
	Volume(id string, number int, path string) (source, target string, err error)

	// MapVolume mounts a path of the host with its files as those of the users of a container's root file
	// system, and returns where, until UnmapVolumes or Release.
	MapVolume(
		ctx context.Context, id string, number int, source string, readOnly bool,
	) (path string, err error)

	UnmapVolumes(ctx context.Context, id string) error

	// Release unmounts and deletes what was made for an ID. What does not exist is success.
	Release(ctx context.Context, id string) error

	// IDs lists all for which something was made.
	IDs() ([]string, error)
}

// Images finds images by name or ID.
type Images interface {
	Get(name string) (image.Image, error)
}

// Config is what a Maker needs.
type Config struct {
	// SeccompDir is where Localhost profiles with relative names are.
	SeccompDir string

	Rootfs   Rootfs
	Images   Images
	AppArmor *apparmor.Profiles
	Host     spec.Host
	Driver   cgroupdriver.Driver
	Log      *slog.Logger
}

// Maker makes bundles. It keeps no state and may be used by many goroutines.
type Maker struct{ cfg Config }

// New returns a Maker.
func New(cfg Config) *Maker { return &Maker{cfg: cfg} }

// Request says what the bundle is of.
type Request struct {
	ID string

	// Dir is the bundle's directory. It is made if need be.
	Dir string

	Container *runtimeapi.ContainerConfig
	Pod       *runtimeapi.PodSandboxConfig
	Image     image.Image

	// Namespaces are the paths of those that the container joins; an empty path is a new one.
	Namespaces map[specs.LinuxNamespaceType]string

	// Users is the pod's user namespace; nil is the host's.
	Users *namespace.Users

	// Files are the mounts that each container of the pod has.
	Files []specs.Mount

	// AllowedAnnotations are patterns of annotations that the OCI runtime may see.
	AllowedAnnotations []string
}

// Bundle is what was decided while a bundle was made.
type Bundle struct {
	User        account.User
	OOMScoreAdj int

	// MountedImages are the IDs of images that are mounted as volumes, by their path in the container.
	MountedImages map[string]string
}

// Make makes a bundle.
func (m *Maker) Make(ctx context.Context, r Request) (Bundle, error) {
	root, err := m.cfg.Rootfs.Prepare(ctx, r.ID, r.Image, r.Users)
	if err != nil {
		return Bundle{}, err
	}

	cfg, mounted, err := m.specConfig(ctx, r, root)
	if err != nil {
		return Bundle{}, err
	}

	generated, err := spec.Generate(cfg)
	if err != nil {
		return Bundle{}, err
	}
	if err := writeSpec(r.Dir, generated); err != nil {
		return Bundle{}, err
	}

	return Bundle{
		User:          cfg.User,
		OOMScoreAdj:   *generated.Process.OOMScoreAdj,
		MountedImages: mounted,
	}, nil
}

// specConfig gathers what the config.json depends on, and makes the volumes and the host paths that the
// container mounts.
func (m *Maker) specConfig(
	ctx context.Context, r Request, root string,
) (cfg spec.Config, mounted map[string]string, err error) {
	security := r.Container.GetLinux().GetSecurityContext()
	cfg = spec.Config{
		ID:                 r.ID,
		Container:          r.Container,
		Sandbox:            r.Pod,
		Image:              r.Image.Config.Config,
		Rootfs:             root,
		Namespaces:         r.Namespaces,
		Users:              r.Users,
		CgroupsPath:        m.cfg.Driver.Path(r.Pod.GetLinux().GetCgroupParent(), r.ID),
		Host:               m.cfg.Host,
		CgroupAnnotations:  m.cfg.Driver.Annotations(r.Container.GetLinux().GetResources().GetUnified()),
		AllowedAnnotations: r.AllowedAnnotations,
	}
	if cfg.User, err = account.Resolve(root, r.Image.Config.Config.User, security); err != nil {
		return cfg, nil, err
	}

	// What the container sees of the node: its present host name, and devices.
	if cfg.Host.Hostname, err = os.Hostname(); err != nil {
		return cfg, nil, fmt.Errorf("host name of the node: %w", err)
	}
	if cfg.Devices, err = host.DevicesFor(r.Container); err != nil {
		return cfg, nil, err
	}

	if cfg.ImageMounts, mounted, err = m.mountImages(ctx, r); err != nil {
		return cfg, nil, err
	}

	volumes, err := m.imageVolumes(r)
	if err != nil {
		return cfg, nil, err
	}

	cfg.Files = append(r.Files, volumes...)

	if cfg.AppArmor, err = m.appArmorProfile(ctx, security); err != nil {
		return cfg, nil, err
	}
	if cfg.Localhost, err = m.localSeccomp(security); err != nil {
		return cfg, nil, err
	}

	if err := makeSources(r.Container.Mounts); err != nil {
		return cfg, nil, err
	}

	cfg.MappedMounts, err = m.mapVolumes(ctx, r)
	return cfg, mounted, err
}

// mapVolumes mounts the volumes of a container that are to show as those of its users.
func (m *Maker) mapVolumes(ctx context.Context, r Request) (map[string]string, error) {
	mapped := map[string]string{}
	for i, v := range r.Container.Mounts {
		wanted, err := spec.Maps(v, r.Users)
		if err != nil {
			return nil, fmt.Errorf("mount %s: %w", v.ContainerPath, err)
		}
		if !wanted {
			continue
		}

		mapped[v.ContainerPath], err = m.cfg.Rootfs.MapVolume(ctx, r.ID, i, v.HostPath, v.Readonly)
		if err != nil {
			return nil, fmt.Errorf("mount %s: %w", v.ContainerPath, err)
		}
	}

	return mapped, nil
}

// localSeccomp reads the profile of a container that asks for one of the node's.
func (m *Maker) localSeccomp(security *runtimeapi.LinuxContainerSecurityContext) ([]byte, error) {
	p := security.GetSeccomp()
	if p.GetProfileType() != runtimeapi.SecurityProfile_Localhost || security.GetPrivileged() {
		return nil, nil
	}

	path := localName(p)
	if !filepath.IsAbs(path) {
		path = filepath.Join(m.cfg.SeccompDir, path)
	}

	profile, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("seccomp profile: %w", err)
	}

	return profile, nil
}

// makeSources makes directories for host paths that do not exist, as all runtimes do.
func makeSources(mounts []*runtimeapi.Mount) error {
	for _, m := range mounts {
		if m.HostPath == "" {
			continue
		}
		if _, err := os.Stat(m.HostPath); errors.Is(err, os.ErrNotExist) {
			if err := os.MkdirAll(m.HostPath, 0o755); err != nil {
				return fmt.Errorf("make host path of mount %s: %w", m.ContainerPath, err)
			}
		}
	}
	return nil
}

// Created releases what only the creation of the container needed.
func (m *Maker) Created(ctx context.Context, id string) error {
	return m.cfg.Rootfs.UnmapVolumes(ctx, id)
}

// Release unmounts and deletes what was made for IDs. What does not exist is success.
func (m *Maker) Release(ctx context.Context, ids ...string) error {
	for _, id := range ids {
		if err := m.cfg.Rootfs.Release(ctx, id); err != nil {
			return err
		}
	}
	return nil
}

// IDs lists all IDs for which something was made and not released.
func (m *Maker) IDs() ([]string, error) { return m.cfg.Rootfs.IDs() }

const specFile = "config.json"

func writeSpec(dir string, s *specs.Spec) error {
	data, err := json.Marshal(s)
	if err != nil {
		return fmt.Errorf("encode spec: %w", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, specFile), data, 0o600)
}

// Process returns the process of the bundle in dir: that of the container, from which an exec takes all but
// its arguments and terminal.
func Process(dir string) (specs.Process, error) {
	data, err := os.ReadFile(filepath.Join(dir, specFile))
	if err != nil {
		return specs.Process{}, err
	}

	var s specs.Spec
	if err := json.Unmarshal(data, &s); err != nil {
		return specs.Process{}, fmt.Errorf("%s: %w", specFile, err)
	}
	if s.Process == nil {
		return specs.Process{}, fmt.Errorf("%s has no process", specFile)
	}

	return *s.Process, nil
}
