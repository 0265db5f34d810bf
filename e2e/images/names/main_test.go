package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/net/dns/dnsmessage"
)

func TestNamesAreTriedInTheOrderOfResolvConf(t *testing.T) {
	path := filepath.Join(t.TempDir(), "resolv.conf")
	if err := os.WriteFile(path, []byte("search ns.svc.cluster.local svc.cluster.local\nnameserver "+
		"10.96.0.10\nnameserver 10.96.0.11\noptions ndots:2\n"), 0o600); err != nil {
		t.Fatal(err)
	}

	c, err := resolvConf(path)
	if err != nil || c.server != "10.96.0.10" {
		t.Fatalf("%+v %v", c, err)
	}

	for name, want := range map[string][]string{
		"a":     {"a.ns.svc.cluster.local.", "a.svc.cluster.local.", "a."},
		"a.b.c": {"a.b.c.", "a.b.c.ns.svc.cluster.local.", "a.b.c.svc.cluster.local."},
		"a.":    {"a."},
	} {
		if got := c.candidates(name); !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
	}
}

func TestDigReadsItsArgumentsInAnyOrder(t *testing.T) {
	for text, want := range map[string]question{
		"a.b":                       {name: "a.b", kind: dnsmessage.TypeA, network: "udp"},
		"+notcp +noall a.b AAAA":    {name: "a.b", kind: dnsmessage.TypeAAAA, network: "udp"},
		"+tcp +short a.b SRV":       {name: "a.b", kind: dnsmessage.TypeSRV, network: "tcp", short: true},
		"a +search PTR +unheard-of": {name: "a", kind: dnsmessage.TypePTR, network: "udp", search: true},
	} {
		if got, err := parseDig(strings.Fields(text)); err != nil || got != want {
			t.Errorf("%s: %+v, %v", text, got, err)
		}
	}

	if _, err := parseDig([]string{"a.b", "MOON"}); err == nil {
		t.Error("a type that does not exist is taken")
	}
}
