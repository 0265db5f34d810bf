package config

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"strings"

	"k8s.io/apimachinery/pkg/api/equality"

	"github.com/trivet-node/trivet/node/kubeletconfig"
)

// settings are what the files and the flags say, as they say it.
type settings struct {
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
	CloudProvider   string // external: a cloud controller says what the node is
	IgnoreEviction  bool   // evictionHard is not taken from what is allocatable
	Ended           Ended

	// Kubelet is that of the files, with the flags laid over it.
	Kubelet kubeletconfig.Configuration

	Flags map[string]string // that were given, for /flagz

	// Notices are lines for the log: what was set and has no effect.
	Notices []string
}

// defaults are kubelet's, but for those that docs/node-config.md names.
func defaults() settings {
	c := settings{
		CertDir: "/var/lib/kubelet/pki",
		RootDir: "/var/lib/kubelet",
		Ended:   Ended{PerContainer: 1, Total: -1},
	}
	c.Kubelet.SetDefaults()
	return c
}

// complete derives what was left open and refuses what cannot be or is not served.
func (c *settings) complete() error {
	if err := c.name(); err != nil {
		return err
	}
	c.derive()

	return errors.Join(c.check(), c.Kubelet.Check(), c.effects())
}

// name is the node's: that of the machine, unless it was given.
func (c *settings) name() error {
	name := c.NodeName
	if name == "" {
		var err error
		if name, err = os.Hostname(); err != nil {
			return fmt.Errorf("hostname: %w", err)
		}
	}
	c.NodeName = strings.ToLower(strings.TrimSpace(name))
	return nil
}

func (c *settings) derive() {
	c.RuntimeEndpoint = c.Kubelet.ContainerRuntimeEndpoint
	c.ImageEndpoint = c.Kubelet.ImageServiceEndpoint
	if c.ImageEndpoint == "" {
		c.ImageEndpoint = c.RuntimeEndpoint
	}
	c.ProviderID = c.Kubelet.ProviderID

	if !c.Kubelet.Enabled("KubeletEnsureSecretPulledImages") &&
		c.Kubelet.ImagePullCredentialsVerificationPolicy == "" {
		c.Kubelet.ImagePullCredentialsVerificationPolicy = "NeverVerify"
	}
}

// check is about what only flags can say.
func (c *settings) check() error {
	if !filepath.IsAbs(c.RootDir) {
		return fmt.Errorf("root directory %q must be absolute", c.RootDir)
	}
	if c.CloudProvider != "" && c.CloudProvider != "external" {
		return fmt.Errorf("--cloud-provider=%s: only external is known", c.CloudProvider)
	}
	if c.Ended.MinAge < 0 {
		return fmt.Errorf("--minimum-container-ttl-duration=%v is negative", c.Ended.MinAge)
	}
	if err := checkNodeIPs(c.NodeIPs); err != nil {
		return fmt.Errorf("--node-ip: %w", err)
	}
	return checkLabels(c.Labels)
}

// effects notices what was set without effect and refuses what is not served: all that differs from the
// default.
func (c *settings) effects() error {
	usual := defaults().Kubelet
	c.Notices = append(c.Notices, c.Kubelet.GateNotices()...)
	var refused []error
	for _, f := range fields {
		if f.effect == Served || equality.Semantic.DeepEqual(f.of(&c.Kubelet), f.of(&usual)) {
			continue
		}

		switch {
		case f.effect == NoEffect:
			c.Notices = append(c.Notices, fmt.Sprintf("field %s has no effect here: %s", f.name, f.note))
		case f.fine == nil || !f.fine(&c.Kubelet):
			refused = append(refused, fmt.Errorf("%s is not served: %s", f.name, f.note))
		}
	}

	return errors.Join(refused...)
}

// of is the value of the field.
func (f field) of(k *kubeletconfig.Configuration) any {
	p, err := k.Field(f.name)
	if err != nil {
		// no row is without its field: a test compares them
		return err
	}
	return reflect.ValueOf(p).Elem().Interface()
}
