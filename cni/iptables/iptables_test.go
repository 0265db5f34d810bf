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
