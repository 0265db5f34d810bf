package picture

import (
	"fmt"
	"slices"
	"strconv"
)

// Spans shows what a few programs spend time on, each on a row, on one time axis.
type Spans struct {
	Title string `json:"title"`
	// Unit is of all times.
	Unit string `json:"unit"`
	Rows []Row  `json:"rows"`
	Note string `json:"note"`
}

// Row is a sequence of spans without gaps, the first of which begins at 0.
type Row struct {
	What  string `json:"what"`
	Spans []Span `json:"spans"`
}

// Span is one step and how long it takes.
type Span struct {
	What string  `json:"what"`
	Took float64 `json:"took"`
}

func (r Row) total() float64 {
	sum := 0.0
	for _, s := range r.Spans {
		sum += s.Took
	}
	return sum
}

// colours of spans, by the step that they are.
const colours = 5

// Draw returns the SVG document. Steps of the same name have the same colour in every row.
func (s Spans) Draw() []byte {
	const (
		width  = 860
		left   = 190
		axis   = 590
		row    = 62
		top    = 52
		legend = 24
	)

	longest := 0.0
	for _, r := range s.Rows {
		longest = max(longest, r.total())
	}

	steps := s.steps()
	bottom := top + row*float64(len(s.Rows))
	foot := bottom + 44 + legend*float64(len(steps)+1)
	c := newCanvas(s.Title, width, foot+30)
	c.text(16, 26, start, "strong", s.Title)

	s.drawAxis(c, left, top, bottom, axis, longest)
	for i, r := range s.Rows {
		y := top + row*float64(i) + 14
		c.text(left-16, y+22, end, "", r.What)
		x := float64(left)
		for _, span := range r.Spans {
			length := axis * span.Took / longest
			c.rect(x, y, max(length, 1), 32, "s"+strconv.Itoa(slices.Index(steps, span.What)%colours))
			x += length
		}
		c.text(x+8, y+22, start, "strong", amount(r.total(), s.Unit))
	}

	s.drawLegend(c, left, bottom+40, legend, steps)
	c.text(16, foot+16, start, "small faint", s.Note)
	return c.svg()
}

// steps are the names of the steps, in the order in which they are first met.
func (s Spans) steps() []string {
	var names []string
	for _, r := range s.Rows {
		for _, span := range r.Spans {
			if !slices.Contains(names, span.What) {
				names = append(names, span.What)
			}
		}
	}
	return names
}

func (s Spans) drawAxis(c *canvas, left, top, bottom, axis, longest float64) {
	step := tick(longest)
	for at := 0.0; at <= longest; at += step {
		x := left + axis*at/longest
		c.line(x, top, x, bottom, "grid")
		c.text(x, bottom+18, middle, "small faint", fmt.Sprintf("%.0f %s", at, s.Unit))
	}
}

// tick is a round distance of which the axis has room for ten at most.
func tick(longest float64) float64 {
	step := 1.0
	for _, factor := range []float64{2, 2.5, 2, 2, 2.5, 2, 2, 2.5, 2} {
		if longest/step <= 10 {
			break
		}
		step *= factor
	}
	return step
}

// drawLegend writes each step with the times of all rows, a column each.
func (s Spans) drawLegend(c *canvas, x, y, height float64, steps []string) {
	for number, what := range steps {
		at := y + height*float64(number+1)
		c.rect(x, at, 12, 12, "s"+strconv.Itoa(number%colours))
		c.text(x+20, at+11, start, "small", what)
	}

	for i, r := range s.Rows {
		column := x + 310 + 160*float64(i)
		c.text(column, y+11, end, "small faint", r.What)
		for _, span := range r.Spans {
			at := y + height*float64(slices.Index(steps, span.What)+1)
			c.text(column, at+11, end, "small", amount(span.Took, s.Unit))
		}
	}
}
