package picture

import (
	"fmt"
	"path/filepath"

	"github.com/trivet-node/trivet/e2e/bench/figure"
)

// Bars is a chart of pairs of measures, each of which is drawn to a scale of its own: the longer bar of a
// pair fills the width, so that ratios can be compared.
type Bars struct {
	Title string `json:"title"`
	// Ours and Theirs name what was compared.
	Ours   string    `json:"ours"`
	Theirs string    `json:"theirs"`
	Rows   []Measure `json:"rows"`
	// Note says where the figures come from.
	Note string `json:"note"`
}

// Measure is a row: something that a benchmark has measured of both sides.
type Measure struct {
	What string `json:"what"`
	// File has the figures of the benchmark; see package figure. Its path begins at the directory of the file
	// that names it.
	File string `json:"file"`
	// Figure is what both sides' figures are called there.
	Figure string `json:"figure"`
}

// pair is a Measure with its medians, which are both in the unit.
type pair struct {
	what, unit   string
	ours, theirs float64
}

// measured looks up the medians of all rows. dir is the directory of the file that has them.
func (b Bars) measured(dir string) ([]pair, error) {
	var all []pair
	for _, row := range b.Rows {
		figures, err := figure.Read(filepath.Join(dir, row.File))
		if err != nil {
			return nil, err
		}
		p, err := row.among(figures)
		if err != nil {
			return nil, err
		}
		all = append(all, p)
	}
	return all, nil
}

// among picks the two figures of a row.
func (m Measure) among(figures []figure.Figure) (pair, error) {
	p := pair{what: m.What}
	ours, theirs := 0, 0
	for _, f := range figures {
		switch {
		case f.What != m.Figure:
		case f.Side == figure.Ours:
			p.ours, p.unit = f.Median, f.Unit
			ours++
		default:
			p.theirs = f.Median
			theirs++
		}
	}

	if ours != 1 || theirs != 1 {
		const format = "%s has %d figures %q of trivet and %d of others, want one of each"
		return p, fmt.Errorf(format, m.File, ours, m.Figure, theirs)
	}
	return p, nil
}

// draw returns the SVG document.
func (b Bars) draw(pairs []pair) []byte {
	const (
		width  = 860
		left   = 300
		bar    = 400
		row    = 50
		top    = 64
		bottom = 40
	)

	c := newCanvas(b.Title, width, top+row*float64(len(pairs))+bottom)
	c.text(16, 26, start, "strong", b.Title)
	c.rect(left, 36, 12, 12, "ours")
	c.text(left+18, 47, start, "small", b.Ours)
	c.rect(left+110, 36, 12, 12, "theirs")
	c.text(left+128, 47, start, "small", b.Theirs)

	for i, p := range pairs {
		y := top + row*float64(i)
		longest := max(p.ours, p.theirs)
		c.text(left-16, y+24, end, "", p.what)

		ours, theirs := bar*p.ours/longest, bar*p.theirs/longest
		c.rect(left, y+4, max(ours, 2), 15, "ours")
		c.text(left+ours+8, y+16, start, "small", amount(p.ours, p.unit))
		c.rect(left, y+21, max(theirs, 2), 15, "theirs")
		c.text(left+theirs+8, y+33, start, "small", amount(p.theirs, p.unit))
		c.text(width-16, y+24, end, "strong", ratio(p.ours, p.theirs))
	}

	c.text(16, top+row*float64(len(pairs))+24, start, "small faint", b.Note)
	return c.svg()
}

// amount has two or three digits.
func amount(value float64, unit string) string {
	if unit == "ms" && value >= 1000 {
		value, unit = value/1000, "s"
	}

	switch {
	case value >= 10:
		return fmt.Sprintf("%.0f %s", value, unit)
	case value >= 1:
		return fmt.Sprintf("%.1f %s", value, unit)
	default:
		return fmt.Sprintf("%.2f %s", value, unit)
	}
}

// ratio says how much less the first is: "1/8.5".
func ratio(ours, theirs float64) string {
	if ours <= 0 {
		return ""
	}
	return fmt.Sprintf("1/%.2g", theirs/ours)
}
