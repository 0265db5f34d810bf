package picture_test

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/trivet-node/trivet/e2e/bench/figure"
	"github.com/trivet-node/trivet/e2e/picture"
)

func TestPicturesOfDocumentsAreDrawnFromTheirData(t *testing.T) {
	all, err := picture.Directory("../../docs/data", "../../docs/img")
	if err != nil {
		t.Fatal(err)
	}

	for _, drawn := range all {
		got, err := os.ReadFile(drawn.Path)
		if err != nil || !bytes.Equal(got, drawn.SVG) {
			t.Errorf("%s is not what its data shows: run make pictures (%v)", drawn.Path, err)
		}
	}

	files, err := filepath.Glob("../../docs/img/*.svg")
	if err != nil || len(files) != len(all) {
		t.Errorf("there are %d pictures, drawn from data are %d (%v)", len(files), len(all), err)
	}
}

// texts are those of an SVG document, which has to be well-formed.
func texts(t *testing.T, svg []byte) []string {
	t.Helper()
	var found []string
	decoder := xml.NewDecoder(bytes.NewReader(svg))
	inText := false
	for {
		token, err := decoder.Token()
		if errors.Is(err, io.EOF) {
			return found
		}
		if err != nil {
			t.Fatalf("not well-formed: %v", err)
		}

		switch token := token.(type) {
		case xml.StartElement:
			inText = token.Name.Local == "text"
		case xml.CharData:
			if inText {
				found = append(found, string(token))
			}
		case xml.EndElement:
			inText = false
		}
	}
}

// bars writes a chart with one row, and the figures that it names, and draws it.
func bars(t *testing.T, figures ...figure.Figure) ([]byte, error) {
	t.Helper()
	dir := t.TempDir()
	w := figure.NewWriter(filepath.Join(dir, "pods.jsonl"))
	w.Add(figures...)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}

	const chart = `{"title": "<1> & 2", "ours": "a", "rows": [
		{"what": "start", "file": "../pods.jsonl", "figure": "one pod"}
	]}`
	file := filepath.Join(dir, "data", "bars-test.json")
	if err := os.Mkdir(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(chart), 0o600); err != nil {
		t.Fatal(err)
	}
	return picture.File(file)
}

// onePod is the figure that the row is about.
func onePod(side string, median float64) figure.Figure {
	return figure.Figure{
		What:   "one pod",
		Side:   side,
		Unit:   "ms",
		Median: median,
	}
}

func TestBarsShowTheFiguresOfBothSidesAndTheirRatio(t *testing.T) {
	other := onePod(figure.Ours, 77)
	other.What = "two pods"
	svg, err := bars(t, other, onePod("kubelet", 4250), onePod(figure.Ours, 500))
	if err != nil {
		t.Fatal(err)
	}

	shown := strings.Join(texts(t, svg), "|")
	for _, want := range []string{"<1> & 2", "start", "500 ms", "4.2 s", "1/8.5"} {
		if !strings.Contains(shown, want) {
			t.Errorf("%q is not in %q", want, shown)
		}
	}
}

func TestBarsNeedOneFigureOfEachSide(t *testing.T) {
	for name, figures := range map[string][]figure.Figure{
		"of trivet only":   {onePod(figure.Ours, 1)},
		"of another only":  {onePod("kubelet", 1)},
		"of two others":    {onePod(figure.Ours, 1), onePod("kubelet", 1), onePod("crio", 1)},
		"of trivet, twice": {onePod(figure.Ours, 1), onePod(figure.Ours, 1), onePod("kubelet", 1)},
		"of nobody at all": nil,
	} {
		if _, err := bars(t, figures...); err == nil || !strings.Contains(err.Error(), `"one pod"`) {
			t.Errorf("%s: error %v does not name the figure", name, err)
		}
	}
}

func TestSpansHaveAnAxisAndALegendOfAllSteps(t *testing.T) {
	spans := picture.Spans{
		Unit: "ms",
		Rows: []picture.Row{
			{What: "one", Spans: []picture.Span{{"start", 10}, {"run", 20}}},
			{What: "two", Spans: []picture.Span{{"start", 100}, {"stop", 300}}},
		},
	}
	shown := strings.Join(texts(t, spans.Draw()), "|")
	for _, want := range []string{"start", "run", "stop", "30 ms", "400 ms", "0 ms", "350 ms"} {
		if !strings.Contains("|"+shown+"|", "|"+want+"|") {
			t.Errorf("%q is not in %q", want, shown)
		}
	}
}

func TestArrowToNowhereIsAnError(t *testing.T) {
	plan := picture.Parts{
		Boxes:  []picture.Box{{Name: "a"}},
		Arrows: []picture.Arrow{{From: picture.Place{Box: "a", Side: "top"}, To: picture.Place{Box: "b"}}},
	}
	if _, err := plan.Draw(); err == nil || !strings.Contains(err.Error(), `"b"`) {
		t.Errorf("error %v does not name the box", err)
	}
}

func TestDataThatCannotBeDrawnIsNamed(t *testing.T) {
	for name, text := range map[string]string{
		"table-misspelt.json": `{"titel": "x"}`,
		"pie-unknown.json":    `{}`,
	} {
		file := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := picture.File(file); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: error %v does not name the file", name, err)
		}
	}
}

func TestWaterfallHasABarForEachPieceOfWork(t *testing.T) {
	w := picture.Waterfall{
		Title: "One pod's start",
		Unit:  "ms",
		Starts: []picture.Start{{
			What: "trivet",
			Took: 50,
			Bars: []picture.Bar{
				{What: "pod start", Program: "trivet-node", At: 1, Took: 48},
				{What: "RunPodSandbox", Program: "trivet-cri", Depth: 1, At: 5, Took: 7},
			},
		}},
	}
	svg := string(w.Draw())
	for _, want := range []string{"trivet: Ready after 50 ms", "RunPodSandbox", `class="s1"`, "48 ms"} {
		if !strings.Contains(svg, want) {
			t.Errorf("the picture does not have %q", want)
		}
	}
	if bars := strings.Count(svg, "<rect"); bars != 4 {
		t.Errorf("%d rectangles, want 2 of the legend and 2 bars", bars)
	}
}
