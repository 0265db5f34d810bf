package tuning

import "testing"

func TestOnlySysctlsOfTheNetworkAreNamed(t *testing.T) {
	for key, want := range map[string]string{
		"net.core.somaxconn":              "net/core/somaxconn",
		"net/ipv4/conf/IFNAME/arp_filter": "net/ipv4/conf/eth0/arp_filter",
		"net.ipv4.conf.IFNAME.arp_filter": "net/ipv4/conf/eth0/arp_filter",
		"kernel.core_pattern":             "",
		"../../etc/passwd":                "",
		"":                                "",
		// Dots are separators, so that nothing leads out.
		"net/../kernel/core_pattern": "net/kernel/core_pattern",
	} {
		got, err := Sysctl{Key: key}.name("eth0")
		if got != want || (err != nil) != (want == "") {
			t.Errorf("%q: %q, %v", key, got, err)
		}
	}
}

func TestAllowListHasPatterns(t *testing.T) {
	s := Settings{Sysctls: []Sysctl{{Key: "net.ipv4.tcp_mem"}, {Key: "net.core.somaxconn"}}}
	for list, allowed := range map[string]bool{
		"":                                  false,
		"net.ipv4.tcp_mem\n":                false,
		"\n net.ipv4..* \nnet.core.somax\n": true,
		".*":                                true,
		"(":                                 false,
	} {
		if err := s.allowed(list); (err == nil) != allowed {
			t.Errorf("%q: %v", list, err)
		}
	}
}
