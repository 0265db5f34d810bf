package cnisuite

import (
	"regexp"
	"slices"
	"strings"
)

// who says whose lines a difference may have.
type who int

const (
	both who = iota
	upstreamOnly
	oursOnly
)

// design is a difference that is meant to be.
type design struct {
	// networks are the only ones that may have it; none means all of them.
	networks []string
	section  string
	who      who
	line     *regexp.Regexp
	reason   string
}

var (
	withoutBackend = []string{"bridge, masquerade", "ptp, portmap"}
	conditional    = []string{"portmap, conditions of nftables"}
)

// designed are the differences that are meant to be, each with its reason.
var designed = []design{
	{
		section: "result",
		who:     oursOnly,
		line:    regexp.MustCompile(`^"gw": "10\.85\.0\.1"$`),
		reason:  "a route of the result has the gateway that it was given",
	},
	{
		section: "routes of the host",
		line:    regexp.MustCompile(`^10\.85\.0\.\d dev VETH scope (host|link)$`),
		reason:  "an address of ptp is on the link, and not one of the host",
	},
	{
		section: "reachability",
		line:    regexp.MustCompile(`^the host to the pod by IPv6: `),
		reason:  "an address of upstream's is not usable before the kernel has looked for duplicates",
	},
	{
		section: "nftables",
		who:     upstreamOnly,
		line:    regexp.MustCompile(` comment "(CNI portmap|Masquerad)[^"]*"$`),
		reason:  "comments of tables and chains are left out",
	},
	{
		section: "nftables",
		who:     oursOnly,
		line:    regexp.MustCompile(`cni_hostport \| chain (trivet_loopback|hostip_hostports iifname "cni:)`),
		reason:  "containers are kept from 127.0.0.0/8, and GC finds the network of host ports",
	},
	{
		networks: withoutBackend,
		section:  "iptables",
		who:      upstreamOnly,
		line:     regexp.MustCompile(`.`),
		reason:   "masquerading without ipMasqBackend is in nftables (ADR 0800)",
	},
	{
		networks: withoutBackend,
		section:  "ip6tables",
		who:      upstreamOnly,
		line:     regexp.MustCompile(`.`),
		reason:   "masquerading without ipMasqBackend is in nftables (ADR 0800)",
	},
	{
		networks: withoutBackend,
		section:  "nftables",
		who:      oursOnly,
		line:     regexp.MustCompile(`^table inet cni_(swap|plugins_masquerade) `),
		reason:   "masquerading without ipMasqBackend is in nftables (ADR 0800)",
	},
	{
		networks: conditional,
		section:  "nftables",
		line:     regexp.MustCompile(`ip cni_hostport \| chain (hostports|prerouting|output) `),
		reason:   "conditions are a container's own, where upstream has those of the last one for all",
	},
	{
		networks: []string{"bridge, sbr"},
		section:  "routes of the pod",
		who:      upstreamOnly,
		line:     regexp.MustCompile(`^fd85::/64 dev eth0 table 100 `),
		reason:   "a table has the routes of the family of its address",
	},
	{
		networks: []string{"portmap, all masqueraded"},
		section:  "nftables",
		line:     regexp.MustCompile(`chain masquerading (ip6? saddr \S+/0 )?ip6? daddr \S+ masquerade`),
		reason:   "a comparison with all addresses is left out",
	},
}

// reason returns why a difference is by design; "" for one that is not.
func (d Difference) reason(n network) string {
	for _, a := range designed {
		isOf := len(a.networks) == 0 || slices.Contains(a.networks, n.name)
		isWhose := a.who == both || (a.who == oursOnly) == d.isOurs
		if isOf && isWhose && strings.HasPrefix(d.section, a.section) && a.line.MatchString(d.line) {
			return a.reason
		}
	}
	return ""
}
