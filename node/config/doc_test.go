package config

import (
	"cmp"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/trivet-node/trivet/node/kubeletconfig"
)

const page = "../../docs/node-config.md"

// TestThePageShowsTheTables fails when docs/node-config.md and the tables differ. TRIVET_WRITE_DOCS=1
// writes the page's tables.
func TestThePageShowsTheTables(t *testing.T) {
	data, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}

	text := string(data)
	for name, table := range map[string]string{"fields": fieldTable(), "flags": flagTable(),
		"gates": gateTable()} {
		before, rest, found := strings.Cut(text, "<!-- "+name+" -->\n")
		have, after, closed := strings.Cut(rest, "<!-- end -->")
		if !found || !closed {
			t.Fatalf("the page has no place for the table of %s", name)
		}
		if have != table && os.Getenv("TRIVET_WRITE_DOCS") == "" {
			t.Errorf("table of %s: run TRIVET_WRITE_DOCS=1 go test ./node/config", name)
		}

		text = before + "<!-- " + name + " -->\n" + table + "<!-- end -->" + after
	}

	if os.Getenv("TRIVET_WRITE_DOCS") != "" {
		if err := os.WriteFile(page, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func fieldTable() string {
	var b strings.Builder
	b.WriteString("| field | here | note |\n| --- | --- | --- |\n")
	for _, f := range fields {
		fmt.Fprintf(&b, "| %s | %s | %s |\n", f.name, f.effect, f.note)
	}
	return b.String()
}

func flagTable() string {
	rows := slices.SortedFunc(slices.Values(flagRows),
		func(a, b flagRow) int { return cmp.Compare(a.name, b.name) })
	var b strings.Builder
	b.WriteString("| flag | sets | here | note |\n| --- | --- | --- | --- |\n")
	for _, row := range rows {
		effect, note := row.result()
		if row.field != "" {
			// it is in the table of fields
			note = ""
		} else if effect == Served {
			note = row.help
		}

		fmt.Fprintf(&b, "| --%s | %s | %s | %s |\n", row.name, row.field, effect, note)
	}

	return b.String()
}

func gateTable() string {
	var rows []string
	for name, note := range kubeletconfig.ServedGates {
		rows = append(rows, fmt.Sprintf("| %s | served | %s |\n", name, note))
	}
	for name, note := range kubeletconfig.RefusedGates {
		rows = append(rows, fmt.Sprintf("| %s | cannot be switched on | %s |\n", name, note))
	}
	slices.Sort(rows)
	return "| gate | here | note |\n| --- | --- | --- |\n" + strings.Join(rows, "")
}
