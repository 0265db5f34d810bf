package conf

import (
	"os"
	"strings"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/trivet-node/trivet/cni/conf/document"
)

// readDNS reads the key dns of a configuration.
func readDNS(o document.Object) (dns types.DNS) {
	o = o.Object("dns")
	o.Read("nameservers", &dns.Nameservers)
	o.Read("domain", &dns.Domain)
	o.Read("search", &dns.Search)
	o.Read("options", &dns.Options)
	return dns
}

// ReadResolvConf reads a resolv.conf(5) as the dns of a result.
func ReadResolvConf(path string) (dns types.DNS, err error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return dns, err
	}

	for line := range strings.Lines(string(data)) {
		words := strings.Fields(line)
		if len(words) < 2 || strings.HasPrefix(words[0], "#") || strings.HasPrefix(words[0], ";") {
			continue
		}

		// Only what a result of CNI can carry; of several domain lines the last one counts, as for the
		// resolver.
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
