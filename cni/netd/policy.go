package netd

import (
	"errors"
	"io/fs"
	"net/netip"
	"os"

	"github.com/trivet-node/trivet/cni/netd/enforcer"
	"github.com/trivet-node/trivet/cni/netd/policies"
	"github.com/trivet-node/trivet/cni/policy/hold"
)

// newEnforcer returns what keeps network policies in force, nil if that is not wanted.
func (d *Daemon) newEnforcer() (*enforcer.Enforcer, error) {
	if !d.cfg.Policies {
		return nil, nil
	}

	cfg, err := d.cfg.enforcer()
	if err != nil {
		return nil, err
	}
	return enforcer.New(d.cluster.Client(), cfg, d.requestPass, d.log), nil
}

// enforcer is what network policies are kept in force by.
func (c Config) enforcer() (enforcer.Config, error) {
	pool, err := poolOf(c.Network, c.Bridge)
	return enforcer.Config{
		NodeName: c.NodeName,
		Network:  c.Network,
		Bridge:   c.Bridge,
		Pool:     pool,
		Passed:   c.Enforced,
	}, err
}

// removePolicies removes what an earlier run with network policies has left, or this one.
func removePolicies(cfg Config) error {
	pool, err := poolOf(cfg.Network, cfg.Bridge)
	if err != nil {
		return err
	}
	return enforcer.Remove(cfg.Network, pool)
}

// reportPolicies tells the enforcer which addresses are this node's pods', and reports what it has found.
func (d *Daemon) reportPolicies(podCIDRs []netip.Prefix, r *Report) {
	if d.enforcer == nil {
		return
	}
	d.enforcer.SetSubnets(podCIDRs)
	found := d.enforcer.Report()
	r.fail(found.Err)
	r.Notes = append(r.Notes, found.Problems...)
	if found.Lacks != "" {
		r.Notes = append(r.Notes, found.Lacks)
	}
}

// holdsPods reports whether the plugin is to hold pods until their policies are in force. That begins when
// the policies were known once, and does not end with them: after a reboot, pods may start before the API
// server answers. A node that has no configuration yet waits for it.
func (d *Daemon) holdsPods() (bool, error) {
	if d.enforcer == nil {
		return false, nil
	}

	location, err := poolOf(d.cfg.Network, d.cfg.Bridge)
	if err != nil {
		return false, err
	}
	location.BootScoped = false
	pool, err := location.Open()
	if err != nil {
		return false, err
	}
	if pool != nil && (hold.Network{Name: d.cfg.Network, Pool: pool}).Known() {
		return true, nil
	}

	_, err = os.Stat(d.cfg.confPath())
	if errors.Is(err, fs.ErrNotExist) {
		return false, errors.New("network policies are not known yet")
	}
	return false, nil
}

// policiesStart reports whether policies are not known only because the daemon has just started.
func (d *Daemon) policiesStart() bool {
	return d.enforcer != nil && errors.Is(d.enforcer.Report().Err, policies.ErrNoListYet)
}
