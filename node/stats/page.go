package stats

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
)

// page is a text in Prometheus' exposition format
// (https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format).
type page struct{ bytes.Buffer }

// head begins a metric; its values follow.
func (p *page) head(name, kind, help string) {
	fmt.Fprintf(p, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, kind)
}

// value writes one sample; labels are name, value, name, value...
func (p *page) value(name string, v float64, labels ...string) {
	p.WriteString(name)
	for i := 0; i+1 < len(labels); i += 2 {
		separator := ","
		if i == 0 {
			separator = "{"
		}

		p.WriteString(separator + labels[i] + "=" + quote(labels[i+1]))
	}

	if len(labels) > 1 {
		p.WriteByte('}')
	}

	p.WriteByte(' ')
	p.WriteString(strconv.FormatFloat(v, 'g', -1, 64))
	p.WriteByte('\n')
}

// single writes a metric with one sample.
func (p *page) single(name, kind, help string, v float64, labels ...string) {
	p.head(name, kind, help)
	p.value(name, v, labels...)
}

func quote(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, "\n", `\n`, `"`, `\"`).Replace(s) + `"`
}
