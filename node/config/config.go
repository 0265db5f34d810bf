// Package config is the configuration of the node agent: kubelet's flags and KubeletConfiguration v1beta1,
// so that a node's files serve both. Every field and flag of kubelet has a row in a table: it is served, or
// has no effect, or is refused. What has no effect is named in a notice, once; what cannot be valid is an
// error that names the field.
package config

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"strings"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"

	"github.com/trivet-node/trivet/node/kubeletconfig"
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
	CloudProvider   string // external: a cloud controller says what the node is
	IgnoreEviction  bool   // evictionHard is not taken from what is allocatable

	// Kubelet is that of the files, with the flags laid over it.
	Kubelet kubeletconfig.Configuration

	Flags map[string]string // that were given, for /flagz

	// Notices are lines for the log: what was set and has no effect.
	Notices []string
}

// Defaults are kubelet's, but for those that docs/node-config.md names.
func Defaults() Config {
	c := Config{CertDir: "/var/lib/kubelet/pki", RootDir: "/var/lib/kubelet"}
	c.Kubelet.SetDefaults()
	return c
}

// Complete derives what was left open and refuses what cannot be or is not served.
func (c *Config) Complete() error {
	if err := c.name(); err != nil {
		return err
	}
	c.derive()

	return errors.Join(c.check(), c.Kubelet.Check(), c.effects())
}

// name is the node's: that of the machine, unless it was given.
func (c *Config) name() error {
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

func (c *Config) derive() {
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
func (c *Config) check() error {
	if !filepath.IsAbs(c.RootDir) {
		return fmt.Errorf("root directory %q must be absolute", c.RootDir)
	}
	if c.CloudProvider != "" && c.CloudProvider != "external" {
		return fmt.Errorf("--cloud-provider=%s: only external is known", c.CloudProvider)
	}
	if err := checkNodeIPs(c.NodeIPs); err != nil {
		return fmt.Errorf("--node-ip: %w", err)
	}
	return checkLabels(c.Labels)
}

// effects notices what was set without effect and refuses what is not served: all that differs from the
// default.
func (c *Config) effects() error {
	usual := Defaults().Kubelet
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

// Reserved is what pods cannot have, beside what evictionHard keeps free.
func (c *Config) Reserved() (v1.ResourceList, error) { return c.Kubelet.Reserved() }
