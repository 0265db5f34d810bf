package portmap

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"

	"github.com/trivet-node/trivet/cni/hostnat"
	"github.com/trivet-node/trivet/cni/nft"
)

// Taken returns an error that names the first of some host ports that another container has in nftables, and
// that container: the rule that was there first would count. A rule with conditions takes a port from nobody
// for certain, and what is in iptables is not looked at, since that costs running a program.
func Taken(container string, ports []hostnat.Port) error {
	return eachTable(func(t table) error {
		own, _, ok := Pod{Ports: ports}.ofFamily(t.is6())
		if !ok {
			return nil
		}

		rules, err := t.reader.Rules(hostPorts, hostIPPorts)
		if err != nil {
			return err
		}

		for _, r := range rules {
			if r.Comment == nft.Cut(container) {
				continue
			}
			for _, p := range own {
				taken, err := t.translates(r, p)
				if err != nil {
					return err
				}
				if taken {
					const format = "%s is taken by container %s in nftables table %s"
					return fmt.Errorf(format, p, r.Comment, tableName)
				}
			}
		}

		return nil
	})
}

// translates reports whether a rule is that of a port, at the same address or at all of them.
func (t table) translates(r nft.Rule, p hostnat.Port) (bool, error) {
	// There may be a thousand rules, of which this leaves few.
	if !r.Mentions(binary.BigEndian.AppendUint16(nil, p.HostPort)) {
		return false, nil
	}

	all := p
	all.HostIP = netip.Addr{}
	for _, same := range []hostnat.Port{p, all} {
		text, err := nft.Text(t.NFProto, t.to(same))
		if err != nil || strings.HasPrefix(r.Text(), text+" | nat ") {
			return err == nil, err
		}
	}
	return false, nil
}
