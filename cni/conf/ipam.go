package conf

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/trivet-node/trivet/cni/conf/document"
	"github.com/trivet-node/trivet/cni/conf/limit"
	"github.com/trivet-node/trivet/cni/ipam"
)

// IPAM is the configuration of host-local.
type IPAM struct {
	Pool ipam.Location
	// Sets are the range sets; those that the runtime asks for come first.
	Sets []ipam.Set
	// Subnets are those of the configuration alone: they are the same for all containers.
	Subnets []netip.Prefix
	Routes  []types.Route
	// ResolvConf is the path of a file whose content becomes the result's dns; "" for none.
	ResolvConf string
	// StatusReserve is how many addresses of each range set have to be free for a good STATUS, beside the one
	// that the next container gets.
	StatusReserve int
	// Requested are the addresses that the runtime asks for.
	Requested []netip.Addr
}

// Types of the IPAM plugins that this program has; Own, the program's own name, is its host-local.
const (
	Own       = "trivet-cni"
	HostLocal = "host-local"
	Static    = "static"
)

// notIPAM are plugins of this program that allocate no addresses. Called for some, they would call themselves
// without end.
var notIPAM = []string{"bridge", "ptp", "loopback", "portmap", "firewall", "bandwidth", "tuning", "sbr"}

// checkIPAMType returns an error for a type that is not an IPAM plugin's.
func checkIPAMType(kind string) error {
	if slices.Contains(notIPAM, kind) {
		return Invalid("ipam: %s is not a plugin that allocates addresses", kind)
	}
	return nil
}

// defaultDataDir is host-local's.
const defaultDataDir = "/var/lib/cni/networks"

// ipamKeys are what an IPAM plugin reads of the configuration of any main plugin.
type ipamKeys struct {
	CNIVersion    string
	Name          string
	IPAM          ipamSection
	RuntimeConfig runtimeConfig
	Args          argsSection
}

func (k *ipamKeys) read(o document.Object) {
	o.Read("cniVersion", &k.CNIVersion)
	o.Read("name", &k.Name)
	k.IPAM.read(o.Object("ipam"))
	k.RuntimeConfig.read(o.Object("runtimeConfig"))
	k.Args.read(o)
}

type ipamSection struct {
	Type       string
	ResolvConf string
	Routes     []types.Route
	Ranges     [][]rangeKeys
	// StatusReserve is a key of ours.
	StatusReserve int
	poolKeys
	// rangeKeys are the old form, with one range.
	rangeKeys
}

func (k *ipamSection) read(o document.Object) {
	o.Read("type", &k.Type)
	o.Read("resolvConf", &k.ResolvConf)
	o.Read("routes", &k.Routes)
	k.Ranges = readRangeKeys(o, "ranges")
	o.Read("statusReserve", &k.StatusReserve)
	k.poolKeys.read(o)
	k.rangeKeys.read(o)
}

// poolKeys say where the reservations are.
type poolKeys struct {
	DataDir    string
	BootScoped bool
}

func (k *poolKeys) read(o document.Object) {
	o.Read("dataDir", &k.DataDir)
	o.Read("bootScoped", &k.BootScoped)
}

type rangeKeys struct {
	Subnet     string
	RangeStart string
	RangeEnd   string
	Gateway    string
}

func (k *rangeKeys) read(o document.Object) {
	o.Read("subnet", &k.Subnet)
	o.Read("rangeStart", &k.RangeStart)
	o.Read("rangeEnd", &k.RangeEnd)
	o.Read("gateway", &k.Gateway)
}

// readRangeKeys reads the range sets of a key.
func readRangeKeys(o document.Object, key string) (sets [][]rangeKeys) {
	for _, list := range o.ObjectLists(key) {
		set := make([]rangeKeys, len(list))
		for i := range list {
			set[i].read(list[i])
		}
		sets = append(sets, set)
	}
	return sets
}

// runtimeConfig are the capability arguments.
type runtimeConfig struct {
	PortMappings []PortMapping
	IPRanges     [][]rangeKeys
	IPs          []string
	MAC          string
	Bandwidth    limit.Keys
}

func (k *runtimeConfig) read(o document.Object) {
	k.PortMappings = ReadPortMappings(o)
	k.IPRanges = readRangeKeys(o, "ipRanges")
	o.Read("ips", &k.IPs)
	o.Read("mac", &k.MAC)
	k.Bandwidth.Read(o.Object("bandwidth"))
}

// argsSection are the arguments of args.cni.
type argsSection struct {
	IPs []string
	MAC string
}

func (k *argsSection) read(o document.Object) {
	cni := o.Object("args").Object("cni")
	cni.Read("ips", &k.IPs)
	cni.Read("mac", &k.MAC)
}

// ReadIPAM reads what host-local needs of the configuration of any main plugin, whose other keys mean nothing
// here. args is CNI_ARGS. It returns nil when the configuration has no ipam.
func ReadIPAM(stdin []byte, args string) (*IPAM, error) {
	var k ipamKeys
	if err := Decode(stdin, k.read); err != nil {
		return nil, err
	}
	if k.IPAM.Type == "" && k.IPAM.Subnet == "" && len(k.IPAM.Ranges) == 0 {
		return nil, nil
	}

	parsed, err := ParseArgs(args)
	if err != nil {
		return nil, err
	}

	return k.config(parsed)
}

func (k ipamKeys) config(args Args) (*IPAM, error) {
	c := &IPAM{
		Pool:       k.IPAM.poolKeys.location(k.Name),
		Routes:     k.IPAM.Routes,
		ResolvConf: k.IPAM.ResolvConf,

		StatusReserve: k.IPAM.StatusReserve,
	}
	if c.StatusReserve < 0 {
		return nil, Invalid("ipam: statusReserve %d is negative", c.StatusReserve)
	}
	if err := k.readRanges(c); err != nil {
		return nil, Invalid("ipam: %w", err)
	}
	if err := oneOfEachFamily(k.CNIVersion, c.Sets); err != nil {
		return nil, Invalid("ipam: %w", err)
	}

	for _, text := range slices.Concat(args.ips(), k.Args.IPs, k.RuntimeConfig.IPs) {
		// Addresses may carry a prefix length (CNI conventions, "ips").
		host, _, _ := strings.Cut(text, "/")
		a, err := netip.ParseAddr(host)
		if err != nil {
			return nil, Invalid("requested address: %w", err)
		}

		c.Requested = append(c.Requested, a.Unmap())
	}

	return c, nil
}

func (k poolKeys) location(network string) ipam.Location {
	l := ipam.Location{
		DataDir:    k.DataDir,
		Network:    network,
		BootScoped: k.BootScoped,
	}
	if l.DataDir == "" {
		l.DataDir = defaultDataDir
	}
	return l
}

// readRanges reads the range sets: first those that the runtime asks for, as in host-local.
func (k ipamKeys) readRanges(c *IPAM) error {
	configured := k.IPAM.Ranges
	if k.IPAM.Subnet != "" {
		configured = slices.Concat([][]rangeKeys{{k.IPAM.rangeKeys}}, configured)
	}

	for _, group := range k.RuntimeConfig.IPRanges {
		set, err := parseSet(group)
		if err != nil {
			return err
		}

		c.Sets = append(c.Sets, set)
	}

	// Only these are the network's: what is masqueraded must not depend on one container.
	for _, group := range configured {
		set, err := parseSet(group)
		if err != nil {
			return err
		}

		c.Sets = append(c.Sets, set)
		for _, r := range set {
			c.Subnets = append(c.Subnets, r.Subnet)
		}
	}

	if len(c.Sets) == 0 {
		return fmt.Errorf("neither subnet nor ranges")
	}

	return ipam.CheckSets(c.Sets)
}

func parseSet(group []rangeKeys) (set ipam.Set, err error) {
	for _, k := range group {
		r, err := k.parse()
		if err != nil {
			return nil, err
		}
		set = append(set, r)
	}
	return set, nil
}

func (k rangeKeys) parse() (r ipam.Range, err error) {
	if r.Subnet, err = netip.ParsePrefix(k.Subnet); err != nil {
		return r, err
	}

	for _, part := range []struct {
		text string
		into *netip.Addr
	}{
		{k.RangeStart, &r.Start},
		{k.RangeEnd, &r.End},
		{k.Gateway, &r.Gateway},
	} {
		if part.text == "" {
			continue
		}
		if *part.into, err = netip.ParseAddr(part.text); err != nil {
			return r, err
		}
	}

	return ipam.NewRange(r)
}

// singleVersions are those of CNI whose result has one address of a family at most.
var singleVersions = []string{"", "0.1.0", "0.2.0"}

// oneOfEachFamily returns an error when a result of an old CNI version cannot carry the addresses: before
// version 0.3.0 it has one IPv4 and one IPv6 address.
func oneOfEachFamily(cniVersion string, sets []ipam.Set) error {
	if !slices.Contains(singleVersions, cniVersion) {
		return nil
	}

	seen := map[bool]bool{}
	for _, set := range sets {
		is4 := set[0].Start.Is4()
		if seen[is4] {
			return fmt.Errorf("CNI version %q does not support more than one address of a family", cniVersion)
		}

		seen[is4] = true
	}

	return nil
}
