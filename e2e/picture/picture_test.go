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

func TestBarsShowBothAmountsAndTheirRatio(t *testing.T) {
	chart := picture.Bars{
		Title: "<1> & 2",
		Ours:  "a",
		Rows:  []picture.Pair{{What: "w", Unit: "ms", Ours: 5, Theirs: 42.5}},
	}
	shown := strings.Join(texts(t, chart.Draw()), "|")
	for _, want := range []string{"<1> & 2", "5.0 ms", "42 ms", "1/8.5"} {
		if !strings.Contains(shown, want) {
			t.Errorf("%q is not in %q", want, shown)
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
