package picture

import (
	"fmt"
	"slices"
	"strconv"
)

// Waterfall shows what happens in the starts of a few pods, below each other on one time axis: a bar for each
// piece of work, those of which it consists below it.
type Waterfall struct {
	Title string `json:"title"`
	// Unit is of all times.
	Unit   string  `json:"unit"`
	Starts []Start `json:"starts"`
	Note   string  `json:"note"`
}

// Start is one pod's, which took until Ready.
type Start struct {
	What string  `json:"what"`
	Took float64 `json:"took"`
	Bars []Bar   `json:"bars"`
}

// Bar is a piece of work of a program, which began At after the start did.
type Bar struct {
	What    string  `json:"what"`
	Program string  `json:"program"`
	Depth   int     `json:"depth"`
	At      float64 `json:"at"`
	Took    float64 `json:"took"`
}

// Lengths of a waterfall, in pixels.
const (
	fallWidth  = 860.0
	fallLeft   = 300.0
	fallAxis   = 500.0
	fallRow    = 20.0
	fallIndent = 12.0
)

// Draw returns the SVG document. Bars of one program have one colour.
func (w Waterfall) Draw() []byte {
	longest, rows := 0.0, 0
	var programs []string
	for _, s := range w.Starts {
		longest = max(longest, s.Took)
		rows += len(s.Bars) + 2
		for _, b := range s.Bars {
			longest = max(longest, b.At+b.Took)
			if !slices.Contains(programs, b.Program) {
				programs = append(programs, b.Program)
			}
		}
	}

	const top = 66.0
	bottom := top + fallRow*float64(rows)
	c := newCanvas(w.Title, fallWidth, bottom+70)
	c.text(16, 26, start, "strong", w.Title)
	for i, p := range programs {
		x := 16 + 130*float64(i)
		c.rect(x, 40, 12, 12, colour(i))
		c.text(x+20, 51, start, "small", p)
	}

	step := tick(longest)
	for at := 0.0; at <= longest; at += step {
		x := fallLeft + fallAxis*at/longest
		c.line(x, top, x, bottom, "grid")
		c.text(x, bottom+18, middle, "small faint", fmt.Sprintf("%.0f %s", at, w.Unit))
	}

	y := top
	for _, s := range w.Starts {
		c.text(16, y+16, start, "strong", fmt.Sprintf("%s: Ready after %s", s.What, amount(s.Took, w.Unit)))
		y = s.draw(c, y+fallRow, longest, w.Unit, programs) + fallRow
	}

	c.text(16, bottom+48, start, "small faint", w.Note)
	return c.svg()
}

// draw draws the bars from y on, and returns where they end.
func (s Start) draw(c *canvas, y, longest float64, unit string, programs []string) float64 {
	for _, b := range s.Bars {
		x := fallLeft + fallAxis*max(b.At, 0)/longest
		length := max(fallAxis*b.Took/longest, 1)
		c.text(16+fallIndent*float64(b.Depth), y+14, start, "small", b.What)
		c.rect(x, y+3, length, fallRow-6, colour(slices.Index(programs, b.Program)))
		c.text(min(x+length+6, fallWidth-60), y+14, start, "small faint", amount(b.Took, unit))
		y += fallRow
	}
	return y
}

func colour(i int) string { return "s" + strconv.Itoa(i%colours) }
