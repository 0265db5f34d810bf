package meta

import (
	"github.com/trivet-node/trivet/cni/conf"
	"github.com/trivet-node/trivet/cni/conf/document"
	"github.com/trivet-node/trivet/cni/firewall"
	"github.com/trivet-node/trivet/cni/iptables"
	"github.com/trivet-node/trivet/cni/isolation"
)

type firewallKeys struct {
	Backend       string
	AdminChain    string
	FirewalldZone string
	IngressPolicy string
}

func (k *firewallKeys) read(o document.Object) {
	o.Read("backend", &k.Backend)
	o.Read("iptablesAdminChainName", &k.AdminChain)
	o.Read("firewalldZone", &k.FirewalldZone)
	o.Read("ingressPolicy", &k.IngressPolicy)
}

// ReadFirewall reads the configuration of firewall. Backend is "" when it names none.
func ReadFirewall(stdin []byte) (c firewall.Config, err error) {
	var k firewallKeys
	if err := conf.Decode(stdin, k.read); err != nil {
		return c, err
	}

	c = k.config()
	switch c.Backend {
	case "", firewall.IPTables, firewall.Firewalld, firewall.NFTables:
	default:
		return c, conf.Invalid("backend %q is not one of iptables, firewalld, nftables", k.Backend)
	}

	if c.Policy, err = isolation.ParsePolicy(k.IngressPolicy); err != nil {
		return c, conf.Invalid("ingressPolicy %w", err)
	}

	return c, checkChain("iptablesAdminChainName", c.AdminChain)
}

// checkChain returns an error that names a key whose value is not the name of a chain of iptables.
func checkChain(key, name string) error {
	if !iptables.IsChainName(name) {
		const rule = "1 to 28 letters, digits, '_', '.' or '-', which is not the first"
		return conf.Invalid("%s %q is not the name of a chain (%s)", key, name, rule)
	}
	return nil
}

// ReadFirewallLeniently reads what DEL and GC need of it.
func ReadFirewallLeniently(stdin []byte) (firewall.Config, error) {
	o, err := conf.DecodeLeniently(stdin)
	var k firewallKeys
	k.read(o)
	return k.config(), err
}

func (k firewallKeys) config() firewall.Config {
	c := firewall.Config{
		Backend:    firewall.Backend(k.Backend),
		AdminChain: k.AdminChain,
		Zone:       k.FirewalldZone,
		Policy:     isolation.Policy(k.IngressPolicy),
	}
	if c.AdminChain == "" {
		c.AdminChain = "CNI-ADMIN"
	}
	if c.Zone == "" {
		c.Zone = "trusted"
	}
	return c
}
