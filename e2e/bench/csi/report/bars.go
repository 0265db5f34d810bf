package report

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/trivet-node/trivet/e2e/bench/figure"
)

// full is how long the bar of the bare disk is; longest is how long one may become.
const (
	full    = 20
	longest = 30
)

// bar is a volume of a kind beside the disk.
type bar struct {
	kind       string
	here, disk float64
}

func allBars(figures []figure.Figure) string {
	var text strings.Builder
	for _, p := range []Pattern{RandomWrites, SequentialWrites, DirectWrites, SequentialReads} {
		text.WriteString(p.bars(figures))
	}
	if text.Len() == 0 {
		return ""
	}
	return "\n```\n" + strings.TrimPrefix(text.String(), "\n") + "```\n"
}

// bars of a pattern: as long as the share of what the disk does.
func (p Pattern) bars(figures []figure.Figure) string {
	rows := p.measured(figures)
	if len(rows) == 0 {
		return ""
	}

	width := 0
	for _, r := range rows {
		width = max(width, utf8.RuneCountInString(r.kind))
	}

	var text strings.Builder
	fmt.Fprintf(&text, "\n%s, beside the bare disk at that moment\n", p.Name)
	for _, r := range rows {
		share := r.here / r.disk
		length := min(max(int(share*full+0.5), 1), longest)
		fmt.Fprintf(
			&text,
			"%-*s  %s%s %3.0f %%  %s of %s\n",
			width,
			r.kind,
			strings.Repeat("█", length),
			strings.Repeat("░", max(full-length, 0)),
			share*100,
			amount(r.here, p.Unit),
			amount(r.disk, p.Unit),
		)
	}
	return text.String()
}

// measured has the kinds of which both sides are known, in their order.
func (p Pattern) measured(figures []figure.Figure) []bar {
	disk := map[string]float64{}
	for _, f := range figures {
		if f.Side == Disk {
			disk[f.What] = f.Median
		}
	}

	var rows []bar
	for _, f := range figures {
		kind, ok := strings.CutPrefix(f.What, p.what(""))
		if ok && f.Side == figure.Ours && disk[f.What] > 0 {
			rows = append(rows, bar{kind, f.Median, disk[f.What]})
		}
	}
	return rows
}
