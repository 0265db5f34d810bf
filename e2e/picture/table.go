package picture

// Table shows what holds in which case, a case a row.
type Table struct {
	Title   string   `json:"title"`
	Columns []string `json:"columns"`
	Rows    []Case   `json:"rows"`
}

// Case is a row of a Table.
type Case struct {
	What  string `json:"what"`
	Cells []Cell `json:"cells"`
}

// Cell says what holds. Good marks it as what one wishes; it is a compromise otherwise.
type Cell struct {
	Good bool   `json:"good"`
	Text string `json:"text"`
	// More is a second line.
	More string `json:"more"`
}

// Draw returns the SVG document.
func (t Table) Draw() []byte {
	const (
		width  = 860
		left   = 200
		row    = 52
		top    = 76
		bottom = 12
	)

	c := newCanvas(t.Title, width, top+row*float64(len(t.Rows))+bottom)
	c.text(16, 26, start, "strong", t.Title)
	column := (width - left - 16) / float64(len(t.Columns))
	for i, name := range t.Columns {
		c.text(left+column*float64(i), 60, start, "small faint", name)
	}

	for i, r := range t.Rows {
		y := top + row*float64(i)
		c.line(16, y, width-16, y, "grid")
		c.text(16, y+31, start, "", r.What)
		for j, cell := range r.Cells {
			t.cell(c, left+column*float64(j), y, cell)
		}
	}
	return c.svg()
}

func (t Table) cell(c *canvas, x, y float64, cell Cell) {
	class, mark := "fair", "◐"
	if cell.Good {
		class, mark = "good", "●"
	}

	if cell.More == "" {
		c.text(x, y+31, start, class, mark)
		c.text(x+20, y+31, start, "small", cell.Text)
		return
	}
	c.text(x, y+23, start, class, mark)
	c.text(x+20, y+23, start, "small", cell.Text)
	c.text(x+20, y+40, start, "small faint", cell.More)
}
