package main

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
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
