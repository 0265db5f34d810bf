// Package nfttest changes rules of nftables in tests as an administrator does, by nft(8).
package nfttest

import (
	"fmt"
	"os/exec"
	"strings"
	"testing"

	"github.com/trivet-node/trivet/internal/namespace"
	"github.com/trivet-node/trivet/internal/testenv"
)

// Run runs a command of nft(8) in a network namespace and returns what it prints.
func Run(tb testing.TB, netns, command string) string {
	tb.Helper()
	program := testenv.Program(tb, "nft", "nftables")
	var out []byte
	err := namespace.Do(func() (err error) {
		out, err = exec.Command(program, "-a", command).CombinedOutput()
		return err
	}, netns)
	if err != nil {
		tb.Fatalf("nft %s: %v: %s", command, err, out)
	}
	return string(out)
}

// Change replaces a text by another one in the first rule that has it, of a chain that is named by family,
// table and name. The rule stays where it is.
func Change(tb testing.TB, netns, chain, from, to string) {
	tb.Helper()
	for line := range strings.Lines(Run(tb, netns, "list chain "+chain)) {
		rule, handle, isRule := strings.Cut(strings.TrimSpace(line), " # handle ")
		if isRule && strings.Contains(rule, from) && !strings.HasPrefix(rule, "chain ") {
			rule = strings.Replace(rule, from, to, 1)
			Run(tb, netns, fmt.Sprintf("replace rule %s handle %s %s", chain, handle, rule))
			return
		}
	}
	tb.Fatalf("chain %s has no rule with %q", chain, from)
}
