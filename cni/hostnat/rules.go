package hostnat

import (
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Registers of 4 bytes; an address of IPv6 takes four. Concatenations lie side by side in them.
const reg0 = unix.NFT_REG32_00

// build adds chains, sets and rules to the transaction.
func (t *Table) build() error {
	chain := func(
		name string,
		kind nftables.ChainType,
		hook *nftables.ChainHook,
		priority *nftables.ChainPriority,
	) *nftables.Chain {
		return t.conn.AddChain(&nftables.Chain{
			Table:    t.table,
			Name:     name,
			Type:     kind,
			Hooknum:  hook,
			Priority: priority,
		})
	}

	post := chain("postrouting",
		nftables.ChainTypeNAT, nftables.ChainHookPostrouting, nftables.ChainPriorityNATSource)
	for _, f := range []*family{t.byFam[true], t.byFam[false]} {
		for _, s := range f.perPod() {
			if err := t.conn.AddSet(s, nil); err != nil {
				return err
			}
		}

		t.rule(
			post,
			f.is(),
			f.load(f.saddr, reg0),
			f.load(f.daddr, reg0+uint32(f.size)/4),
			in(f.hairpin),
			masquerade(),
		)
	}

	if t.config.Ports {
		t.portRules(chain, post)
	}

	t.rule(t.conn.AddChain(&nftables.Chain{Table: t.table, Name: t.marker()}), verdict(expr.VerdictReturn))
	if t.config.Masquerade {
		return t.masqueradeRules(post)
	}

	return nil
}

// portChain is called from the hooks that packets to host ports pass.
const portChain = "hostports"

var portHooks = map[string]*nftables.ChainHook{
	"prerouting": nftables.ChainHookPrerouting,
	"output":     nftables.ChainHookOutput,
}

func (t *Table) portRules(
	chain func(string, nftables.ChainType, *nftables.ChainHook, *nftables.ChainPriority) *nftables.Chain,
	post *nftables.Chain,
) {
	ports := t.conn.AddChain(&nftables.Chain{Table: t.table, Name: portChain})
	for _, f := range []*family{t.byFam[true], t.byFam[false]} {
		words := uint32(f.size) / 4
		t.rule(
			ports,
			f.is(),
			f.load(f.daddr, reg0),
			protocol(reg0+words),
			port(reg0+words+1),
			lookup(f.addrPorts),
			f.dnat(),
		)

		t.rule(ports, f.is(), protocol(reg0), port(reg0+1), lookup(f.ports), f.dnat())
	}

	for name, hook := range portHooks {
		t.rule(chain(name, nftables.ChainTypeNAT, hook, nftables.ChainPriorityNATDest), toThisHost(),
			jump(ports.Name))
	}

	if !t.config.SNAT {
		return
	}

	// route_localnet, which host ports on 127.0.0.1 need, also lets pods reach the host's loopback services,
	// and reach others in the name of the host itself: not by our bridge.
	raw := chain("loopback",
		nftables.ChainTypeFilter, nftables.ChainHookPrerouting, nftables.ChainPriorityRaw)
	f := t.byFam[true]
	for _, side := range []uint32{f.daddr, f.saddr} {
		t.rule(raw, interfaceIs(expr.MetaKeyIIFNAME, t.config.Bridge), f.is(), f.within(side, v4.loopback),
			verdict(expr.VerdictDrop))
	}

	t.rule(
		post,
		interfaceIs(expr.MetaKeyOIFNAME, t.config.Bridge),
		f.is(),
		f.within(f.saddr, v4.loopback),
		masquerade(),
	)
	if !t.config.HostRouted {
		// The pod would answer its neighbour on the bridge directly, past the translation.
		t.rule(
			post,
			interfaceIs(expr.MetaKeyIIFNAME, t.config.Bridge),
			interfaceIs(expr.MetaKeyOIFNAME, t.config.Bridge),
			translated(),
			masquerade(),
		)
	}
}

func (t *Table) masqueradeRules(post *nftables.Chain) error {
	for _, f := range []*family{t.byFam[true], t.byFam[false]} {
		// Deleting and adding a set that a rule uses is refused, flushing it is not.
		if err := t.conn.AddSet(f.noMasq, nil); err != nil {
			return err
		}

		t.conn.FlushSet(f.noMasq)
		if err := t.conn.SetAddElements(f.noMasq, f.intervals(t.own(f))); err != nil {
			return err
		}

		// Told by the bridge, not by the source: one pod's runtimeConfig may bring a range that the
		// configuration does not have.
		t.rule(
			post,
			interfaceIs(expr.MetaKeyIIFNAME, t.config.Bridge),
			interfaceIsNot(expr.MetaKeyOIFNAME, t.config.Bridge),
			f.is(),
			f.load(f.daddr, reg0),
			notIn(f.noMasq),
			masquerade(),
		)
	}

	return nil
}

// own are the destinations that see the pods' own addresses.
func (t *Table) own(f *family) []netip.Prefix {
	return slices.Concat(t.config.Subnets, t.config.NoMasq, []netip.Prefix{f.groups})
}

func (t *Table) rule(c *nftables.Chain, parts ...[]expr.Any) {
	r := &nftables.Rule{Table: t.table, Chain: c}
	for _, p := range parts {
		r.Exprs = append(r.Exprs, p...)
	}
	t.conn.AddRule(r)
	t.rules[c.Name]++
}

// is: meta nfproto ipv4|ipv6.
func (f *family) is() []expr.Any {
	return []expr.Any{&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: reg0}, equal([]byte{f.nfproto})}
}

// load: ip saddr|daddr into a register.
func (f *family) load(offset, register uint32) []expr.Any {
	return []expr.Any{&expr.Payload{
		DestRegister: register,
		Base:         expr.PayloadBaseNetworkHeader,
		Offset:       offset,
		Len:          uint32(f.size),
	}}
}

// within: ip saddr|daddr PREFIX.
func (f *family) within(offset uint32, p netip.Prefix) []expr.Any {
	mask := make([]byte, f.size)
	for i := range p.Bits() {
		mask[i/8] |= 0x80 >> (i % 8)
	}

	return append(f.load(offset, reg0),
		&expr.Bitwise{
			SourceRegister: reg0,
			DestRegister:   reg0,
			Len:            uint32(f.size),
			Mask:           mask,
			Xor:            make([]byte, f.size),
		},
		equal(p.Masked().Addr().AsSlice()))
}

// dnat: dnat to the address and port that a lookup left in the registers.
func (f *family) dnat() []expr.Any {
	return []expr.Any{&expr.NAT{
		Type:        expr.NATTypeDestNAT,
		Family:      uint32(f.nfproto),
		RegAddrMin:  reg0,
		RegProtoMin: reg0 + uint32(f.size)/4,
	}}
}

func equal(value []byte) expr.Any {
	return &expr.Cmp{Op: expr.CmpOpEq, Register: reg0, Data: value}
}

func protocol(register uint32) []expr.Any {
	return []expr.Any{&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: register}}
}

// port: th dport. TCP, UDP and SCTP have it in the same place.
func port(register uint32) []expr.Any {
	return []expr.Any{&expr.Payload{
		DestRegister: register,
		Base:         expr.PayloadBaseTransportHeader,
		Offset:       2,
		Len:          2,
	}}
}

func lookup(s *nftables.Set) []expr.Any {
	return []expr.Any{&expr.Lookup{
		SourceRegister: reg0,
		DestRegister:   reg0,
		IsDestRegSet:   true,
		SetName:        s.Name,
		SetID:          s.ID,
	}}
}

func in(s *nftables.Set) []expr.Any {
	return []expr.Any{&expr.Lookup{SourceRegister: reg0, SetName: s.Name, SetID: s.ID}}
}

func notIn(s *nftables.Set) []expr.Any {
	return []expr.Any{&expr.Lookup{
		SourceRegister: reg0,
		SetName:        s.Name,
		SetID:          s.ID,
		Invert:         true,
	}}
}

// toThisHost: fib daddr type local.
func toThisHost() []expr.Any {
	return []expr.Any{
		&expr.Fib{Register: reg0, FlagDADDR: true, ResultADDRTYPE: true},
		equal(binaryutil.NativeEndian.PutUint32(unix.RTN_LOCAL)),
	}
}

// translated: ct status dnat.
func translated() []expr.Any {
	// IPS_DST_NAT of <linux/netfilter/nf_conntrack_common.h>
	const ipsDstNAT = 1 << 5
	mask := binaryutil.NativeEndian.PutUint32(ipsDstNAT)
	return []expr.Any{
		&expr.Ct{Key: expr.CtKeySTATUS, Register: reg0},
		&expr.Bitwise{
			SourceRegister: reg0,
			DestRegister:   reg0,
			Len:            4,
			Mask:           mask,
			Xor:            make([]byte, 4),
		},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: reg0, Data: make([]byte, 4)},
	}
}

// interfaceIs: iifname|oifname NAME.
func interfaceIs(key expr.MetaKey, name string) []expr.Any {
	padded := make([]byte, unix.IFNAMSIZ)
	copy(padded, name)
	return []expr.Any{&expr.Meta{Key: key, Register: reg0}, equal(padded)}
}

func interfaceIsNot(key expr.MetaKey, name string) []expr.Any {
	is := interfaceIs(key, name)
	is[1].(*expr.Cmp).Op = expr.CmpOpNeq
	return is
}

func masquerade() []expr.Any { return []expr.Any{&expr.Masq{}} }

func jump(chain string) []expr.Any {
	return []expr.Any{&expr.Verdict{Kind: expr.VerdictJump, Chain: chain}}
}

func verdict(kind expr.VerdictKind) []expr.Any { return []expr.Any{&expr.Verdict{Kind: kind}} }
