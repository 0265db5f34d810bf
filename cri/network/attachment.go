package network

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"time"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
)

// PortMapping is a host port of a pod, in the words of the capability portMappings.
type PortMapping struct {
	HostPort      int32  `json:"hostPort"`
	ContainerPort int32  `json:"containerPort"`
	Protocol      string `json:"protocol"`
	HostIP        string `json:"hostIP,omitempty"`
}

// Attachment is a pod that is to be joined to the network.
type Attachment struct {
	// ID is CNI's container ID: the sandbox's.
	ID string

	// Netns is the path of the pod's network namespace.
	Netns string

	// Name, Namespace and UID are the pod's.
	Name, Namespace, UID string

	CgroupPath string
	Ports      []PortMapping

	// DNS has the keys servers, searches and options; nil if the pod asks for nothing.
	DNS map[string]any

	// Annotations are the pod's, of which those about its bandwidth matter.
	Annotations map[string]string
}

func (a Attachment) runtimeConf() *libcni.RuntimeConf {
	capabilities := map[string]any{}
	if len(a.Ports) > 0 {
		capabilities["portMappings"] = a.Ports
	}
	if a.DNS != nil {
		capabilities["dns"] = a.DNS
	}
	if a.CgroupPath != "" {
		capabilities["cgroupPath"] = a.CgroupPath
	}

	// Setup refuses annotations that make no sense; nothing but Setup needs those that do.
	if b, err := a.bandwidth(); err == nil && b != nil {
		capabilities["bandwidth"] = b
	}

	return &libcni.RuntimeConf{
		ContainerID:    a.ID,
		NetNS:          a.Netns,
		IfName:         interfaceName,
		CapabilityArgs: capabilities,
		Args: [][2]string{
			{"IgnoreUnknown", "1"},
			{"K8S_POD_NAMESPACE", a.Namespace},
			{"K8S_POD_NAME", a.Name},
			{"K8S_POD_INFRA_CONTAINER_ID", a.ID},
			{"K8S_POD_UID", a.UID},
		},
	}
}

// undoLimit bounds the DEL after an ADD that failed.
const undoLimit = 30 * time.Second

// Setup joins a pod and returns its addresses. When an ADD fails, what it has half done is undone as far as
// the plugins can.
func (n *Network) Setup(ctx context.Context, a Attachment) ([]netip.Addr, error) {
	list, notReady := n.current()
	if list == nil {
		return nil, notReady
	}

	if _, err := a.bandwidth(); err != nil {
		return nil, fmt.Errorf("join pod %s/%s to network %s: %w", a.Namespace, a.Name, list.Name, err)
	}

	result, err := n.cni.AddNetworkList(ctx, list, a.runtimeConf())
	if err != nil {
		err = fmt.Errorf("join pod %s/%s to network %s: %w", a.Namespace, a.Name, list.Name, err)
		return nil, errors.Join(err, n.undo(ctx, list, a))
	}

	converted, err := types100.GetResult(result)
	if err != nil {
		err = fmt.Errorf("result of network %s: %w", list.Name, err)
		return nil, errors.Join(err, n.Teardown(context.WithoutCancel(ctx), a))
	}

	return addresses(converted), nil
}

// ErrorCode returns the code of the error with which a plugin has answered, and false for any other error.
// The codes below 100 are those of CNI (section 6 of its specification, "Error").
func ErrorCode(err error) (code uint, ok bool) {
	failure, ok := errors.AsType[*types.Error](err)
	if !ok {
		return 0, false
	}
	return failure.Code, true
}

func (n *Network) undo(ctx context.Context, list *libcni.NetworkConfigList, a Attachment) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoLimit)
	defer cancel()
	if err := n.cni.DelNetworkList(ctx, list, a.runtimeConf()); err != nil {
		return fmt.Errorf("undo it: %w", err)
	}
	return nil
}

// addresses returns those of interfaces inside the pod, in the order of the result.
func addresses(r *types100.Result) []netip.Addr {
	var all []netip.Addr
	for _, ip := range r.IPs {
		if isOutside(r, ip.Interface) {
			continue
		}
		if addr, ok := netip.AddrFromSlice(ip.Address.IP); ok {
			all = append(all, addr.Unmap())
		}
	}
	return all
}

// isOutside reports whether an index of an interface in a result is that of one on the host.
func isOutside(r *types100.Result, index *int) bool {
	if index == nil || *index < 0 || *index >= len(r.Interfaces) {
		return false
	}
	return r.Interfaces[*index].Sandbox == ""
}

// Teardown releases a pod from all networks that it was joined to, by the cached ADD. Without one, as after a
// kill in the middle of an ADD, it is released from the present network, which may hold something for it. A
// pod that was never joined is success.
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
			errs = append(errs, releaseError(a, at.Network, err))
		}
	}

	return errors.Join(errs...)
}

func releaseError(a Attachment, network string, err error) error {
	return fmt.Errorf("release pod %s/%s from network %s: %w", a.Namespace, a.Name, network, err)
}

func (n *Network) releaseUncached(ctx context.Context, a Attachment) error {
	list, _ := n.current()
	if list == nil {
		return nil
	}
	conf := a.runtimeConf()
	conf.NetNS = existing(conf.NetNS)
	if err := n.cni.DelNetworkList(ctx, list, conf); err != nil {
		return releaseError(a, list.Name, err)
	}
	return nil
}

// release releases a pod by a cached ADD, with the configuration of that time.
func (n *Network) release(ctx context.Context, at *libcni.NetworkAttachment) error {
	list, err := cachedList(at.Config)
	if err != nil {
		return fmt.Errorf("cached configuration: %w", err)
	}
	return n.cni.DelNetworkList(ctx, list, &libcni.RuntimeConf{
		ContainerID:    at.ContainerID,
		NetNS:          existing(at.NetNS),
		IfName:         at.IfName,
		Args:           at.CniArgs,
		CapabilityArgs: at.CapabilityArgs,
	})
}

// existing returns the path of a network namespace; empty if it is gone, by which plugins know that they have
// to release only what is outside of it.
func existing(netns string) string {
	if _, err := os.Stat(netns); err != nil {
		return ""
	}
	return netns
}

// cachedList returns the configuration of a cached ADD, which is that of a list or of one plugin.
func cachedList(config []byte) (*libcni.NetworkConfigList, error) {
	var probe struct{ Plugins []json.RawMessage }
	if err := json.Unmarshal(config, &probe); err != nil {
		return nil, err
	}
	if len(probe.Plugins) > 0 {
		return libcni.NetworkConfFromBytes(config)
	}

	plugin, err := libcni.NetworkPluginConfFromBytes(config)
	if err != nil {
		return nil, err
	}

	list, err := json.Marshal(map[string]any{
		"name":       plugin.Network.Name,
		"cniVersion": plugin.Network.CNIVersion,
		"plugins":    []json.RawMessage{config},
	})
	if err != nil {
		return nil, err
	}

	return libcni.NetworkConfFromBytes(list)
}
