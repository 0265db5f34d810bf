// Package config is the configuration of the node agent: kubelet's flags and KubeletConfiguration v1beta1, so that a node's files serve both.
// What is not served is named in a warning, once, with what happens instead; what cannot be valid is an error that names the field.
package config

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// Config is everything the agent needs to know.
type Config struct {
	NodeName        string
	NodeIPs         []net.IP // empty: found out
	Kubeconfig      string   // empty: no API server
	Bootstrap       string
	CertDir         string
	RootDir         string
	RuntimeEndpoint string
	ImageEndpoint   string
	Labels          map[string]string
	ProviderID      string
	Kubelet         Kubelet // of the file, flags laid over it
}

// Kubelet are the fields of KubeletConfiguration that are served.
type Kubelet struct {
	StaticPodPath             string              `json:"staticPodPath"`
	StaticPodURL              string              `json:"staticPodURL"`
	StaticPodURLHeader        map[string][]string `json:"staticPodURLHeader"`
	PodLogsDir                string              `json:"podLogsDir"`
	Address                   string              `json:"address"`
	Port                      int32               `json:"port"`
	TLSCertFile               string              `json:"tlsCertFile"`
	TLSPrivateKeyFile         string              `json:"tlsPrivateKeyFile"`
	RotateCertificates        bool                `json:"rotateCertificates"`
	ServerTLSBootstrap        bool                `json:"serverTLSBootstrap"`
	Authentication            Authentication      `json:"authentication"`
	Authorization             Authorization       `json:"authorization"`
	EnableServer              *bool               `json:"enableServer"`
	HealthzPort               *int32              `json:"healthzPort"`
	HealthzBindAddress        string              `json:"healthzBindAddress"`
	ClusterDomain             string              `json:"clusterDomain"`
	ClusterDNS                []string            `json:"clusterDNS"`
	NodeStatusUpdateFrequency Duration            `json:"nodeStatusUpdateFrequency"`
	NodeStatusReportFrequency Duration            `json:"nodeStatusReportFrequency"`
	NodeLeaseDurationSeconds  int32               `json:"nodeLeaseDurationSeconds"`
	CgroupRoot                string              `json:"cgroupRoot"`
	CgroupDriver              string              `json:"cgroupDriver"`
	MaxPods                   int64               `json:"maxPods"`
	PodPidsLimit              *int64              `json:"podPidsLimit"`
	ResolverConfig            *string             `json:"resolvConf"`
	CPUCFSQuota               *bool               `json:"cpuCFSQuota"`
	SerializeImagePulls       *bool               `json:"serializeImagePulls"`
	MaxParallelImagePulls     *int                `json:"maxParallelImagePulls"`
	EvictionHard              map[string]string   `json:"evictionHard"`
	SystemReserved            map[string]string   `json:"systemReserved"`
	KubeReserved              map[string]string   `json:"kubeReserved"`
	ContainerLogMaxSize       string              `json:"containerLogMaxSize"`
	ContainerLogMaxFiles      *int                `json:"containerLogMaxFiles"`
	AllowedUnsafeSysctls      []string            `json:"allowedUnsafeSysctls"`
	ProviderID                string              `json:"providerID"`
	CrashLoopBackOff          CrashLoopBackOff    `json:"crashLoopBackOff"`
	SeccompDefault            *bool               `json:"seccompDefault"`
	RegisterWithTaints        []v1.Taint          `json:"registerWithTaints"`
	RegisterNode              *bool               `json:"registerNode"`
	ContainerRuntimeEndpoint  string              `json:"containerRuntimeEndpoint"`
	ImageServiceEndpoint      string              `json:"imageServiceEndpoint"`
}

// Authentication is who may speak to the agent's API.
type Authentication struct {
	X509 struct {
		ClientCAFile string `json:"clientCAFile"`
	} `json:"x509"`
	Webhook struct {
		Enabled  *bool    `json:"enabled"`
		CacheTTL Duration `json:"cacheTTL"`
	} `json:"webhook"`
	Anonymous struct {
		Enabled *bool `json:"enabled"`
	} `json:"anonymous"`
}

// Authorization is how it is decided what they may do.
type Authorization struct {
	Mode    string `json:"mode"` // Webhook or AlwaysAllow
	Webhook struct {
		CacheAuthorizedTTL   Duration `json:"cacheAuthorizedTTL"`
		CacheUnauthorizedTTL Duration `json:"cacheUnauthorizedTTL"`
	} `json:"webhook"`
}

// CrashLoopBackOff bounds the back-off of restarts.
type CrashLoopBackOff struct {
	MaxContainerRestartPeriod *Duration `json:"maxContainerRestartPeriod"`
}

// Duration is written as Go writes it: 10s, 5m.
type Duration struct{ time.Duration }

// UnmarshalText reads a duration.
func (d *Duration) UnmarshalText(text []byte) (err error) {
	d.Duration, err = time.ParseDuration(string(text))
	return err
}

// Defaults are kubelet's, but for one.
func Defaults() Config {
	return Config{CertDir: "/var/lib/kubelet/pki", RootDir: "/var/lib/kubelet", Kubelet: Kubelet{
		PodLogsDir: "/var/log/pods", Address: "0.0.0.0", Port: 10250, HealthzPort: new(int32(10248)), HealthzBindAddress: "127.0.0.1",
		ClusterDomain: "", NodeStatusUpdateFrequency: Duration{10 * time.Second}, NodeStatusReportFrequency: Duration{5 * time.Minute},
		NodeLeaseDurationSeconds: 40, MaxPods: 110, ResolverConfig: new("/etc/resolv.conf"), CPUCFSQuota: new(true),
		EvictionHard:        map[string]string{"memory.available": "100Mi", "nodefs.available": "10%", "nodefs.inodesFree": "5%"},
		ContainerLogMaxSize: "10Mi", ContainerLogMaxFiles: new(5), ContainerRuntimeEndpoint: "unix:///run/trivet/cri.sock",
		Authorization: Authorization{Mode: "Webhook"}, RegisterNode: new(true),
		RotateCertificates: true, // where kubelet has to be told: a node whose certificate ends is lost
	}}
}

// Complete derives what was left open and refuses what cannot be.
func (c *Config) Complete() error {
	k := &c.Kubelet
	if c.NodeName == "" {
		name, err := os.Hostname()
		if err != nil {
			return fmt.Errorf("hostname: %w", err)
		}
		c.NodeName = strings.ToLower(strings.TrimSpace(name))
	}
	if c.RuntimeEndpoint == "" {
		c.RuntimeEndpoint = k.ContainerRuntimeEndpoint
	}
	if c.ImageEndpoint == "" {
		c.ImageEndpoint = k.ImageServiceEndpoint
	}
	if c.ImageEndpoint == "" {
		c.ImageEndpoint = c.RuntimeEndpoint
	}
	if c.ProviderID == "" {
		c.ProviderID = k.ProviderID
	}
	for _, s := range k.ClusterDNS {
		if net.ParseIP(s) == nil {
			return fmt.Errorf("clusterDNS %q is no IP address", s)
		}
	}
	switch k.Authorization.Mode {
	case "Webhook", "AlwaysAllow":
	default:
		return fmt.Errorf("authorization.mode %q is neither Webhook nor AlwaysAllow", k.Authorization.Mode)
	}
	switch k.CgroupDriver {
	case "", "cgroupfs", "systemd":
	default:
		return fmt.Errorf("cgroupDriver %q is neither cgroupfs nor systemd", k.CgroupDriver)
	}
	if !filepath.IsAbs(c.RootDir) {
		return fmt.Errorf("root directory %q must be absolute", c.RootDir)
	}
	if k.MaxPods < 1 || k.NodeLeaseDurationSeconds < 1 {
		return fmt.Errorf("maxPods %d and nodeLeaseDurationSeconds %d must be positive", k.MaxPods, k.NodeLeaseDurationSeconds)
	}
	_, err := c.Reserved()
	return err
}

// Reserved is what pods cannot have: system, kube, and the memory that eviction keeps free.
func (c *Config) Reserved() (v1.ResourceList, error) {
	out := v1.ResourceList{}
	add := func(field, name, text string) error {
		q, err := resource.ParseQuantity(text)
		if err != nil {
			return fmt.Errorf("%s: %s=%q: %w", field, name, text, err)
		}
		sum := out[v1.ResourceName(name)]
		sum.Add(q)
		out[v1.ResourceName(name)] = sum
		return nil
	}
	for field, list := range map[string]map[string]string{"systemReserved": c.Kubelet.SystemReserved, "kubeReserved": c.Kubelet.KubeReserved} {
		for name, text := range list {
			if err := add(field, name, text); err != nil {
				return nil, err
			}
		}
	}
	if text, ok := c.Kubelet.EvictionHard["memory.available"]; ok && !strings.HasSuffix(text, "%") {
		if err := add("evictionHard", "memory", text); err != nil {
			return nil, err
		}
	}
	return out, nil
}
