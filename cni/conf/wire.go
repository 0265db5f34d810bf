package conf

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/trivet-node/trivet/cni/ipam"
)

// wire is the JSON on stdin.
type wire struct {
	Bridge           string `json:"bridge"`
	IsGateway        bool   `json:"isGateway"`
	IsDefaultGateway bool   `json:"isDefaultGateway"`
	ForceAddress     bool   `json:"forceAddress"`
	IPMasq           bool   `json:"ipMasq"`
	IPMasqBackend    string `json:"ipMasqBackend"`
	HairpinMode      bool   `json:"hairpinMode"`
	PromiscMode      bool   `json:"promiscMode"`
	PortIsolation    bool   `json:"portIsolation"`
	EnableDAD        bool   `json:"enabledad"`
	MTU              int    `json:"mtu"`

	VLAN             int   `json:"vlan"`
	VLANTrunk        []any `json:"vlanTrunk"`
	MACSpoofCheck    bool  `json:"macspoofchk"`
	DisableInterface bool  `json:"disableContainerInterface"`
	// true is upstream's default and means nothing without VLANs
	PreserveDefault *bool `json:"preserveDefaultVlan"`

	HostRouted bool     `json:"hostRouted"`
	LazyUnlink bool     `json:"lazyUnlink"`
	NoMasq     []string `json:"noMasq"`

	SNAT         *bool    `json:"snat"`
	Backend      string   `json:"backend"`
	ConditionsV4 []string `json:"conditionsV4"`
	ConditionsV6 []string `json:"conditionsV6"`
	MasqAll      bool     `json:"masqAll"`
	MarkMasqBit  *int     `json:"markMasqBit"`
	SetMarkChain *string  `json:"externalSetMarkChain"`

	DNS        types.DNS      `json:"dns"`
	PrevResult map[string]any `json:"prevResult"`

	wireDelegated
}

// wireDelegated is the part that an IPAM plugin reads.
type wireDelegated struct {
	IPAM          wireIPAM      `json:"ipam"`
	RuntimeConfig runtimeConfig `json:"runtimeConfig"`
	Args          wireArgs      `json:"args"`
}

type wireIPAM struct {
	Type       string        `json:"type"`
	DataDir    string        `json:"dataDir"`
	ResolvConf string        `json:"resolvConf"`
	BootScoped bool          `json:"bootScoped"`
	Routes     []types.Route `json:"routes"`
	Ranges     [][]wireRange `json:"ranges"`
	wireRange                // the old form, one range
}

type wireRange struct {
	Subnet     string `json:"subnet"`
	RangeStart string `json:"rangeStart"`
	RangeEnd   string `json:"rangeEnd"`
	Gateway    string `json:"gateway"`
}

type runtimeConfig struct {
	PortMappings []portMapping `json:"portMappings"`
	IPRanges     [][]wireRange `json:"ipRanges"`
	IPs          []string      `json:"ips"`
	MAC          string        `json:"mac"`
}

type portMapping struct {
	HostPort      int    `json:"hostPort"`
	ContainerPort int    `json:"containerPort"`
	Protocol      string `json:"protocol"`
	HostIP        string `json:"hostIP"`
}

type wireArgs struct {
	CNI struct {
		IPs []string `json:"ips"`
		MAC string   `json:"mac"`
	} `json:"cni"`
}

// refuse names the first key of upstream's that this plugin does not have.
func (w *wire) refuse() error {
	for key, set := range map[string]bool{
		"vlan":                      w.VLAN != 0,
		"vlanTrunk":                 len(w.VLANTrunk) > 0,
		"macspoofchk":               w.MACSpoofCheck,
		"disableContainerInterface": w.DisableInterface,
		"preserveDefaultVlan":       w.PreserveDefault != nil && !*w.PreserveDefault,
		"conditionsV4":              len(w.ConditionsV4) > 0,
		"conditionsV6":              len(w.ConditionsV6) > 0,
		"masqAll":                   w.MasqAll,
		"markMasqBit":               w.MarkMasqBit != nil,
		"externalSetMarkChain":      w.SetMarkChain != nil,
		"ipMasqBackend":             w.IPMasqBackend != "" && w.IPMasqBackend != "nftables",
		"backend":                   w.Backend != "" && w.Backend != "nftables",
	} {
		if set {
			return fmt.Errorf("key %q with this value is not supported (nftables is the only backend, "+
				"VLANs and anti-spoofing are not built)", key)
		}
	}

	if t := w.IPAM.Type; t != "" && t != "host-local" {
		return fmt.Errorf("ipam type %q is not supported: the only one is host-local, which is built in", t)
	}

	return nil
}

func (w *wireDelegated) ipam(cniVersion string, args cniArgs) (*IPAM, error) {
	c := &IPAM{
		DataDir:    w.IPAM.DataDir,
		Routes:     w.IPAM.Routes,
		ResolvConf: w.IPAM.ResolvConf,
		BootScoped: w.IPAM.BootScoped,
	}
	if c.DataDir == "" {
		c.DataDir = DefaultDataDir
	}
	if err := w.ranges(c); err != nil {
		return nil, fmt.Errorf("ipam: %w", err)
	}
	if err := c.oneOfEachFamily(cniVersion); err != nil {
		return nil, err
	}

	wanted := append(append(append([]string(nil), strings.Fields(args.ip)...), w.Args.CNI.IPs...),
		w.RuntimeConfig.IPs...)
	for _, text := range wanted {
		// addresses may carry a prefix length (CNI conventions, "ips")
		host, _, _ := strings.Cut(text, "/")
		a, err := netip.ParseAddr(host)
		if err != nil {
			return nil, fmt.Errorf("requested address: %w", err)
		}

		c.Requested = append(c.Requested, a.Unmap())
	}

	return c, nil
}

// ranges reads the range sets. Those asked for at run time come first, as host-local has it.
func (w *wireDelegated) ranges(c *IPAM) error {
	groups := w.IPAM.Ranges
	if w.IPAM.Subnet != "" {
		groups = append([][]wireRange{{w.IPAM.wireRange}}, groups...)
	}

	groups = append(append([][]wireRange(nil), w.RuntimeConfig.IPRanges...), groups...)
	for i, group := range groups {
		var set ipam.Set
		for _, r := range group {
			parsed, err := r.parse()
			if err != nil {
				return err
			}

			set = append(set, parsed)
			if i >= len(w.RuntimeConfig.IPRanges) {
				c.Subnets = append(c.Subnets, parsed.Subnet)
			}
		}

		c.Sets = append(c.Sets, set)
	}

	if len(c.Sets) == 0 {
		return errors.New("neither subnet nor ranges")
	}

	return ipam.CheckSets(c.Sets)
}

// oneOfEachFamily: results before version 0.3.0 have one IPv4 and one IPv6 address.
func (c *IPAM) oneOfEachFamily(cniVersion string) error {
	if cniVersion != "" && cniVersion != "0.1.0" && cniVersion != "0.2.0" {
		return nil
	}

	var count [2]int
	for _, set := range c.Sets {
		family := 0
		if set[0].Start.Is6() {
			family = 1
		}

		if count[family]++; count[family] > 1 {
			return fmt.Errorf("ipam: CNI version %q does not support more than one address of a family",
				cniVersion)
		}
	}

	return nil
}

func (r wireRange) parse() (ipam.Range, error) {
	subnet, err := netip.ParsePrefix(r.Subnet)
	if err != nil {
		return ipam.Range{}, err
	}

	var addresses [3]netip.Addr
	for i, text := range []string{r.RangeStart, r.RangeEnd, r.Gateway} {
		if text == "" {
			continue
		}
		if addresses[i], err = netip.ParseAddr(text); err != nil {
			return ipam.Range{}, err
		}
	}

	return ipam.NewRange(subnet, addresses[0], addresses[1], addresses[2])
}

// Resolver reads a resolv.conf for the result's dns.
func Resolver(path string) (dns types.DNS, err error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return dns, err
	}

	for line := range strings.Lines(string(data)) {
		words := strings.Fields(line)
		if len(words) < 2 || strings.HasPrefix(words[0], "#") || strings.HasPrefix(words[0], ";") {
			continue
		}

		switch words[0] {
		case "nameserver":
			dns.Nameservers = append(dns.Nameservers, words[1])
		case "domain":
			dns.Domain = words[1]
		case "search":
			dns.Search = append(dns.Search, words[1:]...)
		case "options":
			dns.Options = append(dns.Options, words[1:]...)
		}
	}

	return dns, nil
}
