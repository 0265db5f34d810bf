package picture

import "fmt"

// Parts is a plan of programs as boxes, with arrows for what they speak to each other.
type Parts struct {
	Title  string  `json:"title"`
	Width  float64 `json:"width"`
	Height float64 `json:"height"`
	Boxes  []Box   `json:"boxes"`
	Arrows []Arrow `json:"arrows"`
}

// Box is a program.
type Box struct {
	Name string `json:"name"`
	// Lines say what it does.
	Lines  []string `json:"lines"`
	X      float64  `json:"x"`
	Y      float64  `json:"y"`
	Width  float64  `json:"width"`
	Height float64  `json:"height"`
	// Ours marks the programs of this repository.
	Ours bool `json:"ours"`
}

// Arrow leads from one box to another.
type Arrow struct {
	From Place  `json:"from"`
	To   Place  `json:"to"`
	Says string `json:"says"`
	// Shift moves the text to the right of the arrow's middle; below 0, to the left.
	Shift float64 `json:"shift"`
	// Both has a head at its beginning, too.
	Both bool `json:"both"`
}

// Place is a point on the edge of a box: the side, and how far along it, from 0 to 1.
type Place struct {
	Box  string  `json:"box"`
	Side string  `json:"side"`
	At   float64 `json:"at"`
}

// Draw returns the SVG document, or an error for an arrow that leads nowhere.
func (p Parts) Draw() ([]byte, error) {
	c := newCanvas(p.Title, p.Width, p.Height)
	boxes := map[string]Box{}
	for _, b := range p.Boxes {
		boxes[b.Name] = b
		b.draw(c)
	}

	for _, a := range p.Arrows {
		x1, y1, err := a.From.point(boxes)
		if err != nil {
			return nil, err
		}
		x2, y2, err := a.To.point(boxes)
		if err != nil {
			return nil, err
		}

		c.arrow(x1, y1, x2, y2)
		if a.Both {
			c.arrow(x2, y2, x1, y1)
		}
		a.label(c, (x1+x2)/2, (y1+y2)/2)
	}
	return c.svg(), nil
}

func (b Box) draw(c *canvas) {
	class := "box"
	if b.Ours {
		class = "mark"
	}

	c.rect(b.X, b.Y, b.Width, b.Height, class)
	c.text(b.X+12, b.Y+24, start, "strong", b.Name)
	for i, line := range b.Lines {
		c.text(b.X+12, b.Y+44+17*float64(i), start, "small faint", line)
	}
}

func (a Arrow) label(c *canvas, x, y float64) {
	switch {
	case a.Shift > 0:
		c.text(x+a.Shift, y+4, start, "small", a.Says)
	case a.Shift < 0:
		c.text(x+a.Shift, y+4, end, "small", a.Says)
	default:
		c.text(x, y-6, middle, "small", a.Says)
	}
}

func (p Place) point(boxes map[string]Box) (x, y float64, err error) {
	b, ok := boxes[p.Box]
	if !ok {
		return 0, 0, fmt.Errorf("an arrow ends at %q, which is not a box", p.Box)
	}

	switch p.Side {
	case "top":
		return b.X + b.Width*p.At, b.Y, nil
	case "bottom":
		return b.X + b.Width*p.At, b.Y + b.Height, nil
	case "left":
		return b.X, b.Y + b.Height*p.At, nil
	case "right":
		return b.X + b.Width, b.Y + b.Height*p.At, nil
	}
	return 0, 0, fmt.Errorf("an arrow ends at side %q of %s", p.Side, p.Box)
}
