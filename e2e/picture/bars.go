package picture

import "fmt"

// Bars is a chart of pairs of measures, each of which is drawn to a scale of its own: the longer bar of a pair
// fills the width, so that ratios can be compared.
type Bars struct {
	Title string `json:"title"`
	// Ours and Theirs name what was compared.
	Ours   string `json:"ours"`
	Theirs string `json:"theirs"`
	Rows   []Pair `json:"rows"`
	// Note says where the figures come from.
	Note string `json:"note"`
}

// Pair is one measure of both sides.
type Pair struct {
	What   string  `json:"what"`
	Unit   string  `json:"unit"`
	Ours   float64 `json:"ours"`
	Theirs float64 `json:"theirs"`
}

// Draw returns the SVG document.
func (b Bars) Draw() []byte {
	const (
		width  = 860
		left   = 300
		bar    = 400
		row    = 50
		top    = 64
		bottom = 40
	)

	c := newCanvas(b.Title, width, top+row*float64(len(b.Rows))+bottom)
	c.text(16, 26, start, "strong", b.Title)
	c.rect(left, 36, 12, 12, "ours")
	c.text(left+18, 47, start, "small", b.Ours)
	c.rect(left+110, 36, 12, 12, "theirs")
	c.text(left+128, 47, start, "small", b.Theirs)

	for i, pair := range b.Rows {
		y := top + row*float64(i)
		longest := max(pair.Ours, pair.Theirs)
		c.text(left-16, y+24, end, "", pair.What)

		ours, theirs := bar*pair.Ours/longest, bar*pair.Theirs/longest
		c.rect(left, y+4, max(ours, 2), 15, "ours")
		c.text(left+ours+8, y+16, start, "small", amount(pair.Ours, pair.Unit))
		c.rect(left, y+21, max(theirs, 2), 15, "theirs")
		c.text(left+theirs+8, y+33, start, "small", amount(pair.Theirs, pair.Unit))
		c.text(width-16, y+24, end, "strong", ratio(pair.Ours, pair.Theirs))
	}

	c.text(16, top+row*float64(len(b.Rows))+24, start, "small faint", b.Note)
	return c.svg()
}

// amount has two or three digits.
func amount(value float64, unit string) string {
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
