// Package picture draws the pictures of the documents as SVG: the parts and what they speak, the start of a
// pod on a time axis, the bars of the benchmarks, and what survives what. Each is made from data in the
// repository, so that a picture changes when what it shows does. Colours follow the reader's light or dark
// scheme.
package picture

import (
	"encoding/xml"
	"fmt"
	"math"
	"strings"
)

// style is the sheet of every picture. Ours and theirs are the colours of trivet and of what it is compared
// with.
const style = `text{font:14px system-ui,-apple-system,"Segoe UI",sans-serif;fill:#1f2328}
.small{font-size:12px}.strong{font-weight:600}.faint{fill:#59636e}
.box{fill:#f6f8fa;stroke:#d1d9e0}.mark{fill:#ddf4ff;stroke:#54aeff}
.ours{fill:#1f883d}.theirs{fill:#9198a1}.good{fill:#1a7f37}.fair{fill:#9a6700}
.line{stroke:#59636e;stroke-width:1.5;fill:none}.grid{stroke:#d1d9e0;stroke-width:1}
.head{fill:#59636e}.inside{fill:#ffffff}
.s0{fill:#8250df}.s1{fill:#0969da}.s2{fill:#1f883d}.s3{fill:#bf8700}.s4{fill:#cf222e}
@media (prefers-color-scheme:dark){text{fill:#f0f6fc}.faint{fill:#9198a1}
.box{fill:#151b23;stroke:#3d444d}.mark{fill:#121d2f;stroke:#1f6feb}
.ours{fill:#3fb950}.theirs{fill:#656c76}.good{fill:#3fb950}.fair{fill:#d29922}
.line{stroke:#9198a1}.grid{stroke:#3d444d}.head{fill:#9198a1}.inside{fill:#0d1117}
.s0{fill:#ab7df8}.s1{fill:#4493f8}.s2{fill:#3fb950}.s3{fill:#d29922}.s4{fill:#f85149}}`

// canvas collects the elements of a picture. Lengths are in pixels from the upper left corner.
type canvas struct {
	title         string
	width, height float64
	elements      strings.Builder
}

func newCanvas(title string, width, height float64) *canvas {
	return &canvas{
		title:  title,
		width:  width,
		height: height,
	}
}

// svg is the whole document.
func (c *canvas) svg() []byte {
	var b strings.Builder
	fmt.Fprintf(&b, "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %s %s\" width=\"%s\" ",
		number(c.width), number(c.height), number(c.width))
	fmt.Fprintf(&b, "role=\"img\" aria-label=\"%s\">\n", escape(c.title))
	fmt.Fprintf(&b, "<style>%s</style>\n", style)
	b.WriteString(c.elements.String())
	b.WriteString("</svg>\n")
	return []byte(b.String())
}

func (c *canvas) rect(x, y, width, height float64, class string) {
	fmt.Fprintf(&c.elements, "<rect x=\"%s\" y=\"%s\" width=\"%s\" height=\"%s\" rx=\"4\" class=\"%s\"/>\n",
		number(x), number(y), number(width), number(height), class)
}

// anchor says which point of a text its position is.
type anchor string

const (
	start  anchor = "start"
	middle anchor = "middle"
	end    anchor = "end"
)

// text writes one line; y is its base line.
func (c *canvas) text(x, y float64, at anchor, class, text string) {
	fmt.Fprintf(&c.elements, "<text x=\"%s\" y=\"%s\" text-anchor=\"%s\" class=\"%s\">%s</text>\n",
		number(x), number(y), at, class, escape(text))
}

func (c *canvas) line(x1, y1, x2, y2 float64, class string) {
	fmt.Fprintf(&c.elements, "<line x1=\"%s\" y1=\"%s\" x2=\"%s\" y2=\"%s\" class=\"%s\"/>\n",
		number(x1), number(y1), number(x2), number(y2), class)
}

// arrow is a line with a head at its end.
func (c *canvas) arrow(x1, y1, x2, y2 float64) {
	c.line(x1, y1, x2, y2, "line")
	const length, spread = 9, 0.42
	angle := math.Atan2(y2-y1, x2-x1)
	var points []string
	points = append(points, point(x2, y2))
	for _, side := range []float64{angle - spread, angle + spread} {
		points = append(points, point(x2-length*math.Cos(side), y2-length*math.Sin(side)))
	}
	fmt.Fprintf(&c.elements, "<polygon points=\"%s\" class=\"head\"/>\n", strings.Join(points, " "))
}

func point(x, y float64) string { return number(x) + "," + number(y) }

// number has at most one digit after the point, so that a small change of data changes little of the file.
func number(v float64) string {
	text := fmt.Sprintf("%.1f", v)
	return strings.TrimSuffix(text, ".0")
}

func escape(text string) string {
	var b strings.Builder
	// A strings.Builder does not fail.
	_ = xml.EscapeText(&b, []byte(text))
	return b.String()
}
