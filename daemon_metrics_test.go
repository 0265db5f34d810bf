package trivet

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

// daemons are those with metrics of their own names; docs/data/metrics has a list of each, which tests of the
// daemons compare with what is served.
var daemons = []string{"trivet-cri", "trivet-netd", "trivet-csi"}

func TestPageOfDaemonsMetricsIsThatOfTheLists(t *testing.T) {
	var text strings.Builder
	for _, daemon := range daemons {
		var metrics []struct {
			Name, Type, Help string
			Labels           []string
		}
		list := readText(t, "docs/data/metrics/"+daemon+".json")
		if err := json.Unmarshal([]byte(list), &metrics); err != nil {
			t.Fatalf("%s: %v", daemon, err)
		}

		fmt.Fprintf(&text, "### %s\n| metric | type | labels | |\n| --- | --- | --- | --- |\n", daemon)
		for _, m := range metrics {
			help := strings.ReplaceAll(m.Help, "|", `\|`)
			labels := strings.Join(m.Labels, ", ")
			fmt.Fprintf(&text, "| `%s` | %s | %s | %s |\n", m.Name, m.Type, labels, help)
		}
		text.WriteString("\n")
	}
	compareSection(t, "docs/daemon-metrics.md", "daemon metrics", text.String())
}
