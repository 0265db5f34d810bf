// Package network joins pod sandboxes to the network through CNI plugins (CNI 1.1), run by libcni as any
// runtime runs them. What an ADD gave is kept in libcni's cache (/var/lib/cni), from which a DEL works though
// the conflist has changed or is gone.
package network

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/fsnotify/fsnotify"
)

// Interface is the name of the pod's interface.
const Interface = "eth0"

// Config says where CNI is.
type Config struct {
	ConfDir  string   // conflists; the first file by name is used
	BinDirs  []string // plugins
	CacheDir string   // libcni's cache
	Log      *slog.Logger
}

// Network runs the plugins of the default network.
type Network struct {
	cfg Config
	cni *libcni.CNIConfig

	mu    sync.RWMutex // guards all below
	list  *libcni.NetworkConfigList
	ready error // why pods cannot be joined; nil when they can
}

// ErrNotReady says that there is no usable CNI configuration.
var ErrNotReady = errors.New("network is not ready")

// New makes a Network; Run watches the configuration, Reload reads it once.
func New(cfg Config) *Network {
	return &Network{
		cfg:   cfg,
		cni:   libcni.NewCNIConfigWithCacheDir(cfg.BinDirs, cfg.CacheDir, nil),
		ready: ErrNotReady,
	}
}

// Run watches the configuration directory until ctx ends.
func (n *Network) Run(ctx context.Context) error {
	if err := os.MkdirAll(n.cfg.ConfDir, 0o755); err != nil {
		return fmt.Errorf("cni configuration directory: %w", err)
	}

	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watch %s: %w", n.cfg.ConfDir, err)
	}
	defer watcher.Close()

	if err := watcher.Add(n.cfg.ConfDir); err != nil {
		return fmt.Errorf("watch %s: %w", n.cfg.ConfDir, err)
	}

	n.Reload(ctx)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-watcher.Events:
			n.Reload(ctx)
		case err := <-watcher.Errors:
			n.cfg.Log.Warn("cni configuration is not watched fully", "err", err)
		}
	}
}

// Reload reads the configuration and asks its plugins for their STATUS.
func (n *Network) Reload(ctx context.Context) {
	list, err := load(n.cfg.ConfDir)
	if err == nil {
		err = n.status(ctx, list)
	}

	n.mu.Lock()
	changed := (n.ready == nil) != (err == nil)
	n.list, n.ready = list, err
	n.mu.Unlock()
	if changed && err == nil {
		n.cfg.Log.Info("network is ready", "network", list.Name)
	} else if changed {
		n.cfg.Log.Warn("network is not ready", "err", err)
	}
}

func (n *Network) status(ctx context.Context, list *libcni.NetworkConfigList) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if _, err := n.cni.ValidateNetworkList(ctx, list); err != nil {
		return fmt.Errorf("cni network %s: %w", list.Name, err)
	}
	if err := n.cni.GetStatusNetworkList(ctx, list); err != nil {
		return fmt.Errorf("cni network %s: status: %w", list.Name, err)
	}
	return nil
}

// Ready is nil when pods can be joined. A network that was not ready is asked again: its plugins may have
// become so without any change of a file.
func (n *Network) Ready(ctx context.Context) error {
	n.mu.RLock()
	err, known := n.ready, n.list != nil
	n.mu.RUnlock()
	if err != nil && known {
		n.Reload(ctx)
		n.mu.RLock()
		err = n.ready
		n.mu.RUnlock()
	}
	return err
}

// load reads the first configuration by name that can be read, as all runtimes do.
func load(dir string) (*libcni.NetworkConfigList, error) {
	files, err := libcni.ConfFiles(dir, []string{".conf", ".conflist", ".json"})
	if err != nil {
		return nil, fmt.Errorf("cni configuration in %s: %w", dir, err)
	}

	slices.Sort(files)
	errs := []error{fmt.Errorf("%w: no cni configuration in %s", ErrNotReady, dir)}
	for _, file := range files {
		list, err := libcni.NetworkConfFromFile(file)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", filepath.Base(file), err))
			continue
		}

		return list, nil
	}

	return nil, errors.Join(errs...)
}

// PortMapping is a host port of a pod.
type PortMapping struct {
	HostPort      int32  `json:"hostPort"`
	ContainerPort int32  `json:"containerPort"`
	Protocol      string `json:"protocol"`
	HostIP        string `json:"hostIP,omitempty"`
}

// Attachment is a pod to be joined.
type Attachment struct {
	ID, Netns            string
	Name, Namespace, UID string // of the pod
	CgroupPath           string
	Ports                []PortMapping
	DNS                  map[string]any // servers, searches, options; nil: none
}

func (a Attachment) runtimeConf() *libcni.RuntimeConf {
	caps := map[string]any{}
	if len(a.Ports) > 0 {
		caps["portMappings"] = a.Ports
	}
	if a.DNS != nil {
		caps["dns"] = a.DNS
	}
	if a.CgroupPath != "" {
		caps["cgroupPath"] = a.CgroupPath
	}

	return &libcni.RuntimeConf{
		ContainerID:    a.ID,
		NetNS:          a.Netns,
		IfName:         Interface,
		CapabilityArgs: caps,
		Args: [][2]string{
			{
				"IgnoreUnknown",
				"1",
			}, {
				"K8S_POD_NAMESPACE",
				a.Namespace,
			}, {"K8S_POD_NAME", a.Name}, {"K8S_POD_INFRA_CONTAINER_ID", a.ID}, {"K8S_POD_UID", a.UID}},
	}
}

// Setup joins a pod and returns its addresses. When it fails, what was half done is taken back as far as the
// plugins can.
func (n *Network) Setup(ctx context.Context, a Attachment) ([]netip.Addr, error) {
	n.mu.RLock()
	list, ready := n.list, n.ready
	n.mu.RUnlock()
	if list == nil {
		return nil, ready
	}

	result, err := n.cni.AddNetworkList(ctx, list, a.runtimeConf())
	if err != nil {
		err = fmt.Errorf("join pod %s/%s to network %s: %w", a.Namespace, a.Name, list.Name, err)
		undo, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
		defer cancel()

		if del := n.cni.DelNetworkList(undo, list, a.runtimeConf()); del != nil {
			err = errors.Join(err, fmt.Errorf("take it back: %w", del))
		}

		return nil, err
	}

	converted, err := types100.GetResult(result)
	if err != nil {
		return nil, errors.Join(
			fmt.Errorf("result of network %s: %w", list.Name, err),
			n.Teardown(context.WithoutCancel(ctx), a),
		)
	}

	return addresses(converted), nil
}

// addresses are those of interfaces inside the pod, in the order of the result.
func addresses(r *types100.Result) []netip.Addr {
	var all []netip.Addr
	for _, ip := range r.IPs {
		if i := ip.Interface; i != nil && *i >= 0 && *i < len(r.Interfaces) &&
			r.Interfaces[*i].Sandbox == "" {
			continue
		}
		if addr, ok := netip.AddrFromSlice(ip.Address.IP); ok {
			all = append(all, addr.Unmap())
		}
	}
	return all
}

// Teardown releases all networks that the pod was joined to, by the cached ADD. Without one, as after a kill
// in the middle of an ADD, the present network is told to release what it may hold. A pod that was never
// joined is success.
func (n *Network) Teardown(ctx context.Context, a Attachment) error {
	attached, err := n.cni.GetCachedAttachments(a.ID)
	if err != nil {
		return fmt.Errorf("cached networks of pod %s/%s: %w", a.Namespace, a.Name, err)
	}
	if len(attached) == 0 {
		return n.releaseUncached(ctx, a)
	}

	var errs []error
	for _, at := range attached {
		if err := n.release(ctx, at); err != nil {
			errs = append(
				errs,
				fmt.Errorf("release pod %s/%s from network %s: %w", a.Namespace, a.Name, at.Network, err),
			)
		}
	}

	return errors.Join(errs...)
}

func (n *Network) releaseUncached(ctx context.Context, a Attachment) error {
	n.mu.RLock()
	list := n.list
	n.mu.RUnlock()
	if list == nil {
		return nil
	}

	conf := a.runtimeConf()
	if _, err := os.Stat(conf.NetNS); err != nil {
		conf.NetNS = ""
	}
	if err := n.cni.DelNetworkList(ctx, list, conf); err != nil {
		return fmt.Errorf("release pod %s/%s from network %s: %w", a.Namespace, a.Name, list.Name, err)
	}

	return nil
}

func (n *Network) release(ctx context.Context, at *libcni.NetworkAttachment) error {
	var probe struct{ Plugins []json.RawMessage }
	var list *libcni.NetworkConfigList
	err := json.Unmarshal(at.Config, &probe)
	if err == nil && len(probe.Plugins) > 0 {
		list, err = libcni.NetworkConfFromBytes(at.Config)
	} else if err == nil {
		var one *libcni.PluginConfig
		if one, err = libcni.NetworkPluginConfFromBytes(at.Config); err == nil {
			list, err = libcni.ConfListFromConf(one)
		}
	}

	if err != nil {
		return fmt.Errorf("cached configuration: %w", err)
	}

	netns := at.NetNS
	if _, err := os.Stat(netns); err != nil {
		// gone; plugins then release what is outside of it
		netns = ""
	}

	return n.cni.DelNetworkList(ctx, list, &libcni.RuntimeConf{
		ContainerID:    at.ContainerID,
		NetNS:          netns,
		IfName:         at.IfName,
		Args:           at.CniArgs,
		CapabilityArgs: at.CapabilityArgs,
	})
}

// collectLimit bounds one call of the plugins in Collect: one that hangs must not keep the server from
// starting.
const collectLimit = 30 * time.Second

// Collect releases every network whose pod does not live, by its container ID, by the cached ADD, and lets
// the plugins that can (CNI 1.1) collect what no cache tells of. Other runtimes share the cache: a pod whose
// network namespace is there and not below netnsDir is theirs, and live. It is for the start, before pods are
// made: GC must not run beside an ADD (CNI specification, "GC").
func (n *Network) Collect(ctx context.Context, lives func(id string) bool, netnsDir string) error {
	cached, err := n.cni.GetCachedAttachments("")
	if err != nil {
		return fmt.Errorf("cached networks: %w", err)
	}

	var errs []error
	valid := []types.GCAttachment{}
	for _, at := range cached {
		if lives(at.ContainerID) || elsewhere(at.NetNS, netnsDir) {
			valid = append(valid, types.GCAttachment{ContainerID: at.ContainerID, IfName: at.IfName})
			continue
		}

		err := within(ctx, collectLimit, func(ctx context.Context) error { return n.release(ctx, at) })
		if err != nil {
			errs = append(
				errs,
				fmt.Errorf("release pod sandbox %s, which is gone, from network %s: %w",
					at.ContainerID, at.Network, err),
			)
		}
	}

	n.mu.RLock()
	list := n.list
	n.mu.RUnlock()
	if list == nil {
		return errors.Join(errs...)
	}

	err = within(ctx, collectLimit, func(ctx context.Context) error {
		return n.cni.GCNetworkList(ctx, list, &libcni.GCArgs{ValidAttachments: valid})
	})
	if err != nil {
		errs = append(errs, fmt.Errorf("collect garbage of network %s: %w", list.Name, err))
	}

	return errors.Join(errs...)
}

// elsewhere reports whether a network namespace is there, but not below dir.
func elsewhere(netns, dir string) bool {
	if strings.HasPrefix(netns, dir+"/") {
		return false
	}
	_, err := os.Stat(netns)
	return err == nil
}

func within(ctx context.Context, limit time.Duration, f func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	return f(ctx)
}
