package smoke

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// cluster answers every call by a function.
type cluster func(call string) (string, error)

func (c cluster) Kubectl(_ context.Context, stdin string, args ...string) (string, error) {
	return c("kubectl " + strings.Join(args, " ") + "\n" + stdin)
}

func (c cluster) Output(_ context.Context, stdin, name string, args ...string) (string, error) {
	return c(name + " " + strings.Join(args, " ") + "\n" + stdin)
}

func (c cluster) OnNode(_ context.Context, node, script string) (string, error) {
	return c(node + ": " + script)
}

func TestRowThatFailsIsInTheTableAndTheOthersAreTried(t *testing.T) {
	var out, written strings.Builder
	s := Smoke{
		Cluster: cluster(func(call string) (string, error) {
			if strings.HasPrefix(call, "kind get nodes") {
				return "", errors.New("no\nsuch cluster")
			}
			return "", errors.New("refused")
		}),
		Name:   "c",
		Nodes:  []string{"n1"},
		Family: Dual,
		Out:    &out,
		Table:  &written,
	}

	var results []result
	for _, r := range s.rows() {
		results = append(results, s.try(t.Context(), r))
	}
	if err := s.print(results); err != nil {
		t.Fatal(err)
	}

	_, table, _ := strings.Cut(written.String(), "\nipFamily dual\n")
	if got := strings.Count(table, "\n"); got != len(s.rows())+1 {
		t.Errorf("%d lines:\n%s", got, table)
	}
	if !strings.Contains(table, "FAILED: refused") {
		t.Errorf("table:\n%s", table)
	}
}

func TestAddressesAreThoseOfTheFamily(t *testing.T) {
	for _, c := range []struct {
		family Family
		ips    string
		good   bool
	}{
		{IPv4, "10.0.0.1", true},
		{IPv4, "fd00::1", false},
		{IPv4, "10.0.0.1 fd00::1", false},
		{IPv6, "fd00::1", true},
		{IPv6, "10.0.0.1", false},
		{Dual, "10.0.0.1 fd00::1", true},
		{Dual, "fd00::1 10.0.0.1", true},
		{Dual, "10.0.0.1", false},
		{Dual, "10.0.0.1 10.0.0.2", false},
		{Dual, "10.0.0.1 none", false},
	} {
		if err := c.family.check(strings.Fields(c.ips)); (err == nil) != c.good {
			t.Errorf("%s, %s: %v", c.family, c.ips, err)
		}
	}
}

func TestPublishedPortIsReadInEachForm(t *testing.T) {
	for out, want := range map[string]string{
		"127.0.0.1:32768\n":         "127.0.0.1:32768",
		"::1:32768\n":               "[::1]:32768",
		"[::1]:32768\n":             "[::1]:32768",
		"0.0.0.0:32768\n:::32768\n": "0.0.0.0:32768",
		"":                          "",
	} {
		got, err := hostPort(out)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%q: %q, %v", out, got, err)
		}
	}
}

func TestNodesAreStartedSoThatAddressesChange(t *testing.T) {
	nodes := []string{"a", "b", "c"}
	for addresses, want := range map[[3]string]string{
		{"172.18.0.3", "172.18.0.4", "172.18.0.5"}:  "b c a",
		{"172.18.0.10", "172.18.0.9", "172.18.0.8"}: "a b c",
	} {
		by := map[string]string{"a": addresses[0], "b": addresses[1], "c": addresses[2]}
		if got := strings.Join(startOrder(nodes, by), " "); got != want {
			t.Errorf("%v: %s, want %s", addresses, got, want)
		}
	}
}

func TestNodesRunSinceTheFirstOfThemStarted(t *testing.T) {
	said := ""
	s := reboot{
		Cluster: cluster(func(string) (string, error) { return said, nil }),
		Nodes:   []string{"n1", "n2"},
	}

	said = "true 2026-12-01T10:00:02.5Z\ntrue 2026-12-01T10:00:01.25Z\n"
	at, err := s.started(t.Context())
	if want := time.Date(2026, 12, 1, 10, 0, 1, 250_000_000, time.UTC); err != nil || !at.Equal(want) {
		t.Errorf("%v, %v, want %v", at, err, want)
	}

	for _, said = range []string{
		"",
		"true 2026-12-01T10:00:02.5Z\nfalse 2026-12-01T10:00:01Z\n",
		"true never\n",
	} {
		if at, err := s.started(t.Context()); err == nil {
			t.Errorf("%q: %v", said, at)
		}
	}
}

func TestLogThatLacksItsTextIsNamed(t *testing.T) {
	dir := t.TempDir()
	l := log{"journal*.log", "trivet-cri["}
	if err := l.look(dir); err == nil || !strings.Contains(err.Error(), "0 files") {
		t.Errorf("without a file: %v", err)
	}

	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("journal.log", "systemd[1]")
	if err := l.look(dir); err == nil || !strings.Contains(err.Error(), "1 files") {
		t.Errorf("with a file of others: %v", err)
	}

	write("journal2.log", "node trivet-cri[2]")
	if err := l.look(dir); err != nil {
		t.Error(err)
	}
}

func TestImageOfOneNodeThatAnotherHasIsNamed(t *testing.T) {
	i := images{
		Cluster: cluster(func(call string) (string, error) {
			if strings.Contains(call, "crictl images") {
				return "smoke.example/one:1", nil
			}
			return "", nil
		}),
		Nodes: []string{"n1", "n2"},
	}
	err := i.onOneNode(t.Context())
	if err == nil || !strings.Contains(err.Error(), "node n1 has it: true") {
		t.Errorf("error %v", err)
	}
}

func TestManifestsHaveNoPlaceholderLeft(t *testing.T) {
	entries, err := manifests.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}

	n := namespace{
		Cluster: cluster(func(call string) (string, error) {
			for _, left := range []string{"NODE", "NAME", "IMAGE", "POLICY"} {
				if strings.Contains(strings.ReplaceAll(call, "NodePort", ""), left) {
					t.Errorf("%s is left:\n%s", left, call)
				}
			}
			return "", nil
		}),
		Nodes: []string{"n1"},
	}
	for _, e := range entries {
		err := n.applyEach(t.Context(), e.Name(), "NAME", "x", "IMAGE", "y", "POLICY", "z")
		if err != nil {
			t.Error(err)
		}
	}
}
