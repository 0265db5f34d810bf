package cnisuite

import (
	"encoding/json"
	"os/exec"
	"regexp"
	"slices"
	"strings"

	"github.com/trivet-node/trivet/internal/namespace"
)

// state is what a program has made, in lines of sections, without what is different each time.
type state map[string][]string

// commands show what there is, by section: in the host's namespace, or the pod's.
var commands = []struct {
	section string
	inPod   bool
	words   []string
}{
	{"links of the host", false, []string{"ip", "-d", "-j", "link"}},
	{"links of the pod", true, []string{"ip", "-d", "-j", "link"}},
	{"addresses of the host", false, []string{"ip", "-br", "address"}},
	{"addresses of the pod", true, []string{"ip", "-br", "address"}},
	{"routes of the host", false, []string{"ip", "-4", "route", "show", "table", "all"}},
	{"routes of the host", false, []string{"ip", "-6", "route", "show", "table", "all"}},
	{"routes of the pod", true, []string{"ip", "-4", "route", "show", "table", "all"}},
	{"routes of the pod", true, []string{"ip", "-6", "route", "show", "table", "all"}},
	{"rules of routing of the pod", true, []string{"ip", "-4", "rule"}},
	{"rules of routing of the pod", true, []string{"ip", "-6", "rule"}},
	{"disciplines of the host", false, []string{"tc", "qdisc"}},
	{"nftables", false, []string{"nft", "list", "ruleset"}},
	{"iptables", false, []string{"iptables-save"}},
	{"ip6tables", false, []string{"ip6tables-save"}},
}

// look reads what there is on a host.
func (h *host) look() (state, error) {
	s := state{}
	for _, c := range commands {
		path := h.netns
		if c.inPod {
			path = h.pod
		}

		var out []byte
		err := namespace.Do(func() (err error) {
			out, err = exec.Command(c.words[0], c.words[1:]...).Output()
			return err
		}, path)
		if err != nil {
			return nil, err
		}

		text := string(out)
		if strings.HasPrefix(c.section, "links") {
			if text, err = linksOf(out); err != nil {
				return nil, err
			}
		}
		s.add(c.section, c.words[0], text)
	}

	for _, lines := range s {
		slices.Sort(lines)
	}
	return s, nil
}

// linksOf returns a line for each interface, with what a program decides about it.
func linksOf(data []byte) (string, error) {
	var links []struct {
		Name     string   `json:"ifname"`
		Flags    []string `json:"flags"`
		MTU      int      `json:"mtu"`
		Master   string   `json:"master"`
		Promisc  int      `json:"promiscuity"`
		AllMulti int      `json:"allmulti"`
		Info     struct {
			Kind string         `json:"info_kind"`
			Port map[string]any `json:"info_slave_data"`
		} `json:"linkinfo"`
	}
	if err := json.Unmarshal(data, &links); err != nil {
		return "", err
	}

	var b strings.Builder
	for _, l := range links {
		words := []any{l.Name, l.Info.Kind, l.Master, l.MTU, l.Promisc}
		for _, flag := range []string{"UP", "PROMISC", "ALLMULTI", "NOARP"} {
			if slices.Contains(l.Flags, flag) {
				words = append(words, flag)
			}
		}
		for _, key := range []string{"hairpin", "isolated", "learning", "flood", "mcast_flood"} {
			if value, ok := l.Info.Port[key]; ok {
				words = append(words, key, value)
			}
		}

		line, err := json.Marshal(words)
		if err != nil {
			return "", err
		}
		b.Write(append(line, '\n'))
	}

	return b.String(), nil
}

// volatile is what is different each time, and what stands for it.
var volatile = []struct {
	pattern *regexp.Regexp
	text    string
}{
	{regexp.MustCompile(`\b([0-9a-f]{2}:){5}[0-9a-f]{2}\b`), "MAC"},
	{regexp.MustCompile(`"[^"]*/(host|pod|other)"`), `"NAMESPACE"`},
	{regexp.MustCompile(`\bveth[0-9a-f]{8,10}\b`), "VETH"},
	{regexp.MustCompile(`\bif[0-9]+\b`), "ifN"},
	{regexp.MustCompile(`\[[0-9]+:[0-9]+\]`), "[0:0]"},
	{regexp.MustCompile(`fe80::[0-9a-f:]+(%\w+)?`), "LINKLOCAL"},
	{regexp.MustCompile(`\bqdisc (\w+) [0-9a-f]+:`), "qdisc $1 N:"},
	{regexp.MustCompile(` (pref|expires|refcnt) \w+`), ""},
	{regexp.MustCompile(`^# (Generated|Completed|Warning).*`), ""},
	// Whether an interface has its carrier yet is a matter of the instant.
	{regexp.MustCompile(` (linkdown|UP|DOWN|UNKNOWN|LOWERLAYERDOWN) `), " "},
	// Who has made a route, and how many packets a rule has seen.
	{regexp.MustCompile(` proto (static|boot)`), ""},
	{regexp.MustCompile(`counter packets \d+ bytes \d+`), "counter"},
	{regexp.MustCompile(` +`), " "},
}

// add adds the lines of a text to a section. What the kernel makes of an address by itself is left out.
func (s state) add(section, program, text string) {
	chain := ""
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		for _, v := range volatile {
			line = v.pattern.ReplaceAllString(line, v.text)
		}

		// A rule of nftables says what it does together with the names of table and chain.
		switch {
		case program == "nft" && strings.HasPrefix(line, "table "):
			chain = strings.TrimSuffix(line, "{")
			continue
		case program == "nft" && (strings.HasPrefix(line, "chain ") || strings.HasPrefix(line, "set ") ||
			strings.HasPrefix(line, "map ")):
			table, _, _ := strings.Cut(chain, "| ")
			chain = table + "| " + strings.TrimSuffix(line, "{")
			line = "is there"
		case line == "", line == "}", line == "COMMIT":
			continue
		}

		if isOfKernel(line) || isOfIPTables(chain) {
			continue
		}
		if section == "result" {
			line = strings.TrimSuffix(line, ",")
		}
		s[section] = append(s[section], strings.TrimSpace(chain+line))
	}
}

// isOfKernel reports whether a line is of a route that the kernel makes with an address.
func isOfKernel(line string) bool {
	kinds := []string{"local ", "broadcast ", "multicast ", "anycast ", "ff00::/8 ", "fe80::/64 "}
	for _, prefix := range kinds {
		if strings.HasPrefix(line, prefix) {
			return true
		}
	}
	return false
}

// isOfIPTables reports whether a chain of nftables is one that iptables shows as well.
func isOfIPTables(chain string) bool {
	words := strings.Fields(chain)
	return len(words) > 2 && (words[1] == "ip" || words[1] == "ip6") &&
		slices.Contains([]string{"nat", "filter", "mangle", "raw"}, words[2])
}
