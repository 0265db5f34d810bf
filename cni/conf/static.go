package conf

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/trivet-node/trivet/cni/conf/document"
)

// StaticAddress is an address with its prefix length. Gateway is zero when none is named.
type StaticAddress struct {
	Prefix  netip.Prefix
	Gateway netip.Addr
}

// StaticConfig is the configuration of static.
type StaticConfig struct {
	Addresses []StaticAddress
	Routes    []types.Route
	DNS       types.DNS
}

type staticKeys struct {
	CNIVersion string
	HasIPAM    bool
	Routes     []types.Route
	DNS        types.DNS
	Addresses  []staticAddress
	RuntimeIPs []string
	Args       argsSection
}

// staticAddress is an address of the configuration.
type staticAddress struct{ Address, Gateway string }

func (k *staticKeys) read(o document.Object) {
	o.Read("cniVersion", &k.CNIVersion)
	o.Object("runtimeConfig").Read("ips", &k.RuntimeIPs)
	k.Args.read(o)

	ipam := o.Object("ipam")
	k.HasIPAM = o.Raw("ipam") != nil
	ipam.Read("routes", &k.Routes)
	k.DNS = readDNS(ipam)
	for _, part := range ipam.Objects("addresses") {
		var a staticAddress
		part.Read("address", &a.Address)
		part.Read("gateway", &a.Gateway)
		k.Addresses = append(k.Addresses, a)
	}
}

// ReadStatic reads what static needs of the configuration of any main plugin. Addresses of CNI_ARGS, args,
// come beside those of the configuration; those of args.cni and of runtimeConfig come instead of both.
func ReadStatic(stdin []byte, args string) (*StaticConfig, error) {
	var k staticKeys
	if err := Decode(stdin, k.read); err != nil {
		return nil, err
	}
	if !k.HasIPAM {
		return nil, Invalid("ipam is missing")
	}

	parsed, err := ParseArgs(args)
	if err != nil {
		return nil, err
	}

	c := &StaticConfig{Routes: k.Routes, DNS: k.DNS}
	if c.Addresses, err = k.addresses(parsed); err != nil {
		return nil, err
	}
	if err := oneAddressOfEachFamily(k.CNIVersion, c.Addresses); err != nil {
		return nil, Invalid("ipam: %w", err)
	}

	return c, nil
}

func (k staticKeys) addresses(args Args) (all []StaticAddress, err error) {
	for _, configured := range k.Addresses {
		a, err := parseStatic(configured.Address)
		if err != nil {
			return nil, err
		}

		if configured.Gateway != "" {
			if a.Gateway, err = netip.ParseAddr(configured.Gateway); err != nil {
				return nil, Invalid("ipam: gateway: %w", err)
			}
		}

		all = append(all, a)
	}

	if all, err = appendStatic(all, args.ips()); err != nil {
		return nil, err
	}
	if err := setGateways(all, args.gateways()); err != nil {
		return nil, err
	}

	// What the runtime names comes instead of all that was named before.
	for _, named := range [][]string{k.Args.IPs, k.RuntimeIPs} {
		if len(named) == 0 {
			continue
		}
		if all, err = appendStatic(nil, named); err != nil {
			return nil, err
		}
	}

	return all, nil
}

func appendStatic(all []StaticAddress, texts []string) ([]StaticAddress, error) {
	for _, text := range texts {
		a, err := parseStatic(text)
		if err != nil {
			return nil, err
		}
		all = append(all, a)
	}
	return all, nil
}

func parseStatic(text string) (a StaticAddress, err error) {
	p, err := netip.ParsePrefix(text)
	if err != nil {
		const format = "ipam: address %q is not in CIDR notation, such as 10.0.0.2/24"
		return a, Invalid(format, text)
	}
	a.Prefix = netip.PrefixFrom(p.Addr().Unmap(), p.Bits())
	return a, nil
}

// setGateways gives each gateway to the addresses whose subnet it is in.
func setGateways(all []StaticAddress, texts []string) error {
	for _, text := range texts {
		gateway, err := netip.ParseAddr(text)
		if err != nil {
			return Invalid("CNI_ARGS: GATEWAY: %w", err)
		}
		for i := range all {
			if all[i].Prefix.Masked().Contains(gateway) {
				all[i].Gateway = gateway
			}
		}
	}
	return nil
}

// oneAddressOfEachFamily returns an error when a result of an old CNI version cannot carry the addresses.
func oneAddressOfEachFamily(cniVersion string, all []StaticAddress) error {
	if !slices.Contains(singleVersions, cniVersion) {
		return nil
	}

	v4, v6 := 0, 0
	for _, a := range all {
		if a.Prefix.Addr().Is4() {
			v4++
		} else {
			v6++
		}
	}

	if v4 > 1 || v6 > 1 {
		return fmt.Errorf("CNI version %q does not support more than one address of a family", cniVersion)
	}

	return nil
}

// words returns the parts of a value of CNI_ARGS that are separated by commas or spaces.
func words(value string) []string {
	return strings.FieldsFunc(value, func(r rune) bool { return r == ',' || r == ' ' })
}
