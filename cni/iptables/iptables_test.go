package iptables

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func table() *Table {
	t := &Table{chains: map[string]bool{}}
	t.parse(`-P POSTROUTING ACCEPT
-N CNI-a
-N KUBE-x
-A POSTROUTING -s 10.0.0.2/32 -m comment --comment "name: \"n\" id: \"a b\"" -j CNI-a
-A POSTROUTING -s 10.0.0.20/32 -j KUBE-x
-A CNI-a -d 10.0.0.0/24 -j ACCEPT
`)
	return t
}

func TestRulesAreFoundByChainAndText(t *testing.T) {
	for _, c := range []struct {
		chain string
		texts []string
		want  int
	}{
		{"POSTROUTING", nil, 2},
		{"POSTROUTING", []string{" -j CNI-a "}, 1},
		{"POSTROUTING", []string{" -s 10.0.0.2/"}, 1},
		{"POSTROUTING", []string{Quoted(`name: "n" id: "a b"`)}, 1},
		{"POST", nil, 0},
		{"CNI-a", []string{" -j ACCEPT "}, 1},
	} {
		if got := table().Rules(c.chain, c.texts...); len(got) != c.want {
			t.Errorf("%+v: %q", c, got)
		}
	}
	if d := cmp.Diff([]string{"CNI-a"}, table().Chains("CNI-")); d != "" {
		t.Error(d)
	}
}

func TestARuleIsFoundWhateverItsCommentIs(t *testing.T) {
	table := table()
	table.parse(`-A CNI-a -m comment --comment plain -j RETURN
-A CNI-a -s 10.0.0.9/32 -m comment --comment "a \"b\" -j DROP"
`)
	for rule, want := range map[string]bool{
		"-s 10.0.0.2/32 -j CNI-a":  true,
		"-s 10.0.0.20/32 -j CNI-a": false,
		"-s 10.0.0.2/32":           false,
	} {
		if got := table.Has("POSTROUTING", rule); got != want {
			t.Errorf("%q: %v", rule, got)
		}
	}

	for rule, want := range map[string]bool{
		"-d 10.0.0.0/24 -j ACCEPT": true,
		"-j RETURN":                true,
		"-s 10.0.0.9/32":           true,
		"-s 10.0.0.9/32 -j DROP":   false,
	} {
		if got := table.Has("CNI-a", rule); got != want {
			t.Errorf("%q: %v", rule, got)
		}
	}
}

// The programs say it in several ways.
func TestTheLineThatIsWrongIsFound(t *testing.T) {
	for text, want := range map[string]int{
		"iptables-restore: line 3 failed: Bad rule (does a matching rule exist in that chain?).": 3,
		"iptables-restore: line 12 failed":                                                   12,
		"Chain 'CNI-Y' does not exist\nError occurred at line: 4\nTry `iptables-restore -h'": 4,
		"iptables-restore (nf_tables): \nline 2: CHAIN_ADD failed":                           2,
		"the line is busy": 0,
		"line":             0,
	} {
		if got := failedLine(text); got != want {
			t.Errorf("%q: line %d, want %d", text, got, want)
		}
	}
}

func TestChangesAreAScriptOfRestore(t *testing.T) {
	table := table()
	table.EnsureChain("CNI-a")
	table.EnsureChain("CNI-b")
	table.Append("CNI-b", "-m", "comment", "--comment", `a "b" c`+"\n-F", "-j", "RETURN")
	table.Prepend("POSTROUTING", "-j", "CNI-b")
	table.Delete(table.Rules("POSTROUTING", " -j CNI-a ")...)
	table.DeleteChain("CNI-a")
	table.DeleteChain("CNI-c")
	want := []string{
		":CNI-b - [0:0]",
		`-A CNI-b -m comment --comment "a \"b\" c -F" -j RETURN`,
		"-I POSTROUTING 1 -j CNI-b",
		`-D POSTROUTING -s 10.0.0.2/32 -m comment --comment "name: \"n\" id: \"a b\"" -j CNI-a`,
		"-F CNI-a",
		"-X CNI-a",
	}
	if d := cmp.Diff(want, table.changes); d != "" {
		t.Error(d)
	}
}

func TestAChainHasANameOfOneWord(t *testing.T) {
	for name, ok := range map[string]bool{
		"CNI-ADMIN":                     true,
		"cali_x.1":                      true,
		"abcdefghijklmnopqrstuvwxyz01":  true,
		"abcdefghijklmnopqrstuvwxyz012": false,
		"":                              false,
		"-F":                            false,
		"a b":                           false,
		"a\nCOMMIT":                     false,
		"ä":                             false,
	} {
		table := table()
		table.ReplaceChain(name)
		if IsChainName(name) != ok || (table.err == nil) != ok || (len(table.changes) == 1) != ok {
			t.Errorf("%q: %v, %q", name, table.err, table.changes)
		}
	}
}

func FuzzQuotedWordsStayOneWord(f *testing.F) {
	f.Add(`a "b" \ c`)
	f.Add("x\n*nat\n-F")
	f.Fuzz(func(t *testing.T, word string) {
		quoted := quote(word)
		for _, r := range quoted {
			if r < ' ' {
				t.Errorf("%q has a control character", quoted)
			}
		}
		if len(quoted) == 0 {
			t.Error("an empty word is nothing")
		}
	})
}
