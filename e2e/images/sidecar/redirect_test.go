package main

import (
	"strings"
	"testing"
)

func TestPortsThatAreNoneAreRefused(t *testing.T) {
	for _, ports := range []string{"0", "65536", "80;flush ruleset", "8080, 9090"} {
		if rules, err := ruleset(ports); err == nil {
			t.Errorf("%q: %s", ports, rules)
		}
	}
}

func TestPodWithoutPortsIsRedirectedOutboundOnly(t *testing.T) {
	rules, err := ruleset("")
	if err != nil || strings.Contains(rules, "dport") || !strings.Contains(rules, "redirect to :15001") {
		t.Errorf("%s, %v", rules, err)
	}
}
