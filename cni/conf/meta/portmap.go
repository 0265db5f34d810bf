package meta

import (
	"slices"
	"strings"

	"github.com/trivet-node/trivet/cni/conf"
	"github.com/trivet-node/trivet/cni/conf/document"
	"github.com/trivet-node/trivet/cni/portmap"
)

// defaultMarkBit is upstream's: Kubernetes uses 14 and 15, Calico 20 to 31.
const defaultMarkBit = 13

// PortMap is the configuration of portmap.
type PortMap struct {
	portmap.Config
	Ports []conf.Port
}

type portMapKeys struct {
	Name         string
	Backend      string
	SNAT         *bool
	ConditionsV4 []string
	ConditionsV6 []string
	MasqAll      bool
	MarkMasqBit  *int
	SetMarkChain *string
	PortMappings []conf.PortMapping
}

func (k *portMapKeys) read(o document.Object) {
	o.Read("name", &k.Name)
	o.Read("backend", &k.Backend)
	o.Read("snat", &k.SNAT)
	o.Read("conditionsV4", &k.ConditionsV4)
	o.Read("conditionsV6", &k.ConditionsV6)
	o.Read("masqAll", &k.MasqAll)
	o.Read("markMasqBit", &k.MarkMasqBit)
	o.Read("externalSetMarkChain", &k.SetMarkChain)
	k.PortMappings = conf.ReadPortMappings(o.Object("runtimeConfig"))
}

// ReadPortMap reads the configuration of portmap.
func ReadPortMap(stdin []byte) (*PortMap, error) {
	var k portMapKeys
	if err := conf.Decode(stdin, k.read); err != nil {
		return nil, err
	}

	p := &PortMap{}
	p.Network = k.Name
	p.SNAT = k.SNAT == nil || *k.SNAT
	p.MasqueradeAll = k.MasqAll
	p.Conditions4 = k.ConditionsV4
	p.Conditions6 = k.ConditionsV6
	p.MarkBit = defaultMarkBit
	if k.MarkMasqBit != nil {
		p.MarkBit = *k.MarkMasqBit
	}
	if k.SetMarkChain != nil {
		p.SetMarkChain = *k.SetMarkChain
		if err := checkChain("externalSetMarkChain", p.SetMarkChain); err != nil {
			return nil, err
		}
	}

	switch {
	case k.MarkMasqBit != nil && k.SetMarkChain != nil:
		return nil, conf.Invalid("externalSetMarkChain and markMasqBit: one of them sets the mark")
	case p.MarkBit < 0 || p.MarkBit > 31:
		return nil, conf.Invalid("markMasqBit %d is not within 0 and 31", p.MarkBit)
	}

	var err error
	if p.Backend, err = k.backend(); err != nil {
		return nil, err
	}

	p.Ports, err = conf.ReadPorts(k.PortMappings)
	return p, err
}

// backend returns the backend that the configuration names, or whose language it uses; "" for neither.
func (k portMapKeys) backend() (portmap.Backend, error) {
	used := map[portmap.Backend]string{}
	if k.SetMarkChain != nil {
		used[portmap.IPTables] = "externalSetMarkChain"
	}
	all := map[string][]string{"conditionsV4": k.ConditionsV4, "conditionsV6": k.ConditionsV6}
	for key, conditions := range all {
		if err := checkConditions(key, conditions); err != nil {
			return "", err
		}
		if len(conditions) > 0 && conditions[0] != "" {
			used[languageOf(conditions[0])] = key
		}
	}

	named := portmap.Backend(k.Backend)
	switch {
	case !slices.Contains([]portmap.Backend{"", portmap.NFTables, portmap.IPTables}, named):
		return "", conf.Invalid("backend %q is not one of nftables, iptables", k.Backend)
	case named == "" && used[portmap.IPTables] != "":
		named = portmap.IPTables
	case named == "" && used[portmap.NFTables] != "":
		named = portmap.NFTables
	}

	for backend, key := range used {
		if backend != named {
			return "", conf.Invalid("%s is for backend %s, not %s", key, backend, named)
		}
	}

	return named, nil
}

// languageOf tells the conditions of the two backends apart by how the first one begins: those of iptables
// are options, or negated ones.
func languageOf(condition string) portmap.Backend {
	if condition[0] == '-' || condition[0] == '!' {
		return portmap.IPTables
	}
	return portmap.NFTables
}

// checkConditions refuses what would be more than a match: what ends the rule, as nft(8) reads it, or the
// rest of its line. Braces are round sets; one that is not closed would take the rest in.
func checkConditions(key string, conditions []string) error {
	for _, c := range conditions {
		if strings.ContainsAny(c, "\n\r;#") {
			const format = "%s: %q is not a match: it has a semicolon, a number sign or a line break"
			return conf.Invalid(format, key, c)
		}
	}
	if all := strings.Join(conditions, " "); !isBalanced(all) {
		return conf.Invalid("%s: the braces in %q are not in pairs", key, all)
	}
	return nil
}

// isBalanced reports whether each brace that is opened is closed, and no other.
func isBalanced(text string) bool {
	open := 0
	for _, r := range text {
		switch r {
		case '{':
			open++
		case '}':
			open--
		}
		if open < 0 {
			return false
		}
	}
	return open == 0
}
