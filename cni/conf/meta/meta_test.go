package meta_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/trivet-node/trivet/cni/conf"
	"github.com/trivet-node/trivet/cni/conf/meta"
)

func TestBackendOfPortmapIsNamedOrFollowsFromItsLanguage(t *testing.T) {
	for keys, want := range map[string]string{
		`"backend":"iptables"`:                                  "iptables",
		`"externalSetMarkChain":"KUBE-MARK-MASQ"`:               "iptables",
		`"conditionsV4":["!","-s","10.0.0.0/8"]`:                "iptables",
		`"conditionsV6":["ip6","saddr","fd00::/8"]`:             "nftables",
		`"backend":"nftables","conditionsV4":["-s","10.0.0.1"]`: "",
		`"backend":"nftables","externalSetMarkChain":"X"`:       "",
		`"externalSetMarkChain":"X -j DROP"`:                    "",
		`"externalSetMarkChain":""`:                             "",
		`"backend":"pf"`:                                        "",
		`"markMasqBit":32`:                                      "",
		`"markMasqBit":1,"externalSetMarkChain":"X"`:            "",
		`"conditionsV4":["ip saddr 10.0.0.1;","drop"]`:          "",
	} {
		p, err := meta.ReadPortMap([]byte(`{"name":"n",` + keys + `}`))
		if (err != nil) != (want == "") || err == nil && string(p.Backend) != want {
			t.Errorf("%s: %+v, %v, want %q", keys, p, err, want)
		}
	}
}

func TestTuningTakesTheMostSpecificOfEach(t *testing.T) {
	const keys = `{"sysctl":{"net.core.somaxconn":"1","net.ipv4.tcp_syncookies":"1"},
		"mac":"02:00:00:00:00:01","mtu":1400,"runtimeConfig":{"mac":"02:00:00:00:00:03"},
		"args":{"cni":{"sysctl":{"net.core.somaxconn":"2"},"promisc":true,"txQLen":5%s}}}`
	for more, mac := range map[string]string{
		"":                           "02:00:00:00:00:03",
		`,"mac":"02:00:00:00:00:04"`: "02:00:00:00:00:04",
	} {
		c, err := meta.ReadTuning(fmt.Appendf(nil, keys, more), "MAC=02:00:00:00:00:02")
		if err != nil {
			t.Fatal(err)
		}

		s := c.Settings
		const sysctls = "[{net.core.somaxconn 2} {net.ipv4.tcp_syncookies 1}]"
		if s.MAC.String() != mac || s.MTU != 1400 || !s.Promiscuous || *s.TxQueueLength != 5 ||
			fmt.Sprint(s.Sysctls) != sysctls {
			t.Errorf("%+v", s)
		}
	}
}

func TestASysctlIsThereOnce(t *testing.T) {
	_, err := meta.ReadTuning([]byte(`{"sysctl":{"net.core.somaxconn":"1","net/core/somaxconn":"2"}}`), "")
	if err == nil || !strings.Contains(err.Error(), "twice") {
		t.Error(err)
	}
}

func TestRateAndBurstAreThereTogether(t *testing.T) {
	for keys, ok := range map[string]bool{
		`"ingressRate":8000,"ingressBurst":8000`:                               true,
		`"runtimeConfig":{"bandwidth":{"egressRate":8000,"egressBurst":8000}}`: true,
		`"name":"n"`:         true,
		`"ingressRate":8000`: false,
		`"egressBurst":8000`: false,
		`"egressRate":8000,"egressBurst":34359738360`: false,
		`"ingressRate":7,"ingressBurst":8000`:         false,
	} {
		if _, err := meta.ReadBandwidth([]byte(`{` + keys + `}`)); (err == nil) != ok {
			t.Errorf("%s: %v", keys, err)
		}
	}
}

func TestConditionsAreMatches(t *testing.T) {
	for conditions, ok := range map[string]bool{
		`"ip saddr { 10.0.0.0/8, 192.168.0.0/16 }"`:            true,
		`"ip saddr { 10.0.0.0/8,","192.168.0.0/16 }"`:          true,
		`"ip saddr . tcp sport { 10.0.0.1 . 5, 10.0.0.2 . 6}"`: true,
		`"ip saddr { 10.0.0.0/8"`:                              false,
		`"ip saddr 10.0.0.1 }","{"`:                            false,
		`"ip saddr 10.0.0.1; flush ruleset"`:                   false,
		`"ip saddr 10.0.0.1 #"`:                                false,
		`"ip saddr 10.0.0.1\nflush ruleset"`:                   false,
	} {
		_, err := meta.ReadPortMap([]byte(`{"conditionsV4":[` + conditions + `]}`))
		if (err == nil) != ok {
			t.Errorf("%s: %v", conditions, err)
		}
	}
}

func TestSourceRoutesHaveOneGatewayOfAFamily(t *testing.T) {
	for keys, ok := range map[string]bool{
		`"gateways":["10.0.0.1","fd00::1"]`:  true,
		`"table":42`:                         true,
		`"gateways":["10.0.0.1","10.0.0.2"]`: false,
		`"gateways":["x"]`:                   false,
		`"table":0`:                          false,
	} {
		if _, err := meta.ReadSourceRoutes([]byte(`{` + keys + `}`)); (err == nil) != ok {
			t.Errorf("%s: %v", keys, err)
		}
	}
}

func TestFirewallHasUpstreamsDefaults(t *testing.T) {
	c, err := meta.ReadFirewall([]byte(`{}`))
	if err != nil || c.AdminChain != "CNI-ADMIN" || c.Zone != "trusted" || c.Backend != "" {
		t.Errorf("%+v, %v", c, err)
	}
	for _, keys := range []string{`{"backend":"pf"}`, `{"ingressPolicy":"closed"}`,
		`{"iptablesAdminChainName":"-F"}`, `{"iptablesAdminChainName":"a - [0:0]\nCOMMIT"}`} {
		if _, err := meta.ReadFirewall([]byte(keys)); err == nil {
			t.Error(keys)
		}
	}
}

func FuzzReadTheSet(f *testing.F) {
	f.Add([]byte(`{"ipam":{"type":"static","addresses":[{"address":"10.0.0.2/24"}]}}`), "IP=10.0.0.3/24")
	f.Add([]byte(`{"sysctl":{"a":"b"},"mtu":5,"args":{"cni":{"sysctl":{"c":"d"}}}}`), "MAC=02:00:00:00:00:01")
	const port = `{"runtimeConfig":{"portMappings":[{"hostPort":1,"containerPort":2}]},"conditionsV4":["-s"]}`
	f.Add([]byte(port), "")
	const zone = `{"runtimeConfig":{"portMappings":[{"hostPort":1,"containerPort":2,"hostIP":"fe80::1%x;"}]}}`
	f.Add([]byte(zone), "")
	f.Fuzz(func(t *testing.T, data []byte, args string) {
		_, static := conf.ReadStatic(data, args)
		_, ptp := conf.ReadPointToPoint(data, args)
		_, ports := meta.ReadPortMap(data)
		_, tuning := meta.ReadTuning(data, args)
		_, bandwidth := meta.ReadBandwidth(data)
		_, routes := meta.ReadSourceRoutes(data)
		_, firewall := meta.ReadFirewall(data)
		for _, err := range []error{static, ptp, ports, tuning, bandwidth, routes, firewall} {
			if err != nil && !errors.Is(err, conf.ErrDecode) && !errors.Is(err, conf.ErrInvalid) {
				t.Fatalf("an error of no kind: %v", err)
			}
		}
	})
}
