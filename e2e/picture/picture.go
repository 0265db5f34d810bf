package picture

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// kinds are how a file of data is drawn, by the word before the first dash of its name.
var kinds = map[string]func(path string) ([]byte, error){
	"bars": func(path string) ([]byte, error) {
		b, err := read[Bars](path)
		if err != nil {
			return nil, err
		}
		pairs, err := b.measured(filepath.Dir(path))
		if err != nil {
			return nil, err
		}
		return b.draw(pairs), nil
	},
	"parts": func(path string) ([]byte, error) {
		p, err := read[Parts](path)
		if err != nil {
			return nil, err
		}
		return p.Draw()
	},
	"spans": func(path string) ([]byte, error) {
		s, err := read[Spans](path)
		return s.Draw(), err
	},
	"trace": func(path string) ([]byte, error) {
		w, err := read[Waterfall](path)
		return w.Draw(), err
	},
	"table": func(path string) ([]byte, error) {
		t, err := read[Table](path)
		return t.Draw(), err
	},
}

// read decodes JSON strictly: a misspelt key would leave something out of the picture.
func read[T any](path string) (T, error) {
	var value T
	data, err := os.ReadFile(path)
	if err != nil {
		return value, err
	}

	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.DisallowUnknownFields()
	err = decoder.Decode(&value)
	return value, err
}

// File draws the data of one file, whose name says the kind of picture: bars-benchmarks.json.
func File(path string) ([]byte, error) {
	kind, _, _ := strings.Cut(strings.TrimSuffix(filepath.Base(path), ".json"), "-")
	draw, ok := kinds[kind]
	if !ok {
		return nil, fmt.Errorf("%s: no picture is of kind %q", path, kind)
	}
	svg, err := draw(path)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return svg, nil
}

// Drawn is a picture and the file that it belongs into.
type Drawn struct {
	Path string
	SVG  []byte
}

// Directory draws every file of data of a known kind in a directory, for another directory of pictures.
func Directory(data, pictures string) ([]Drawn, error) {
	var files []string
	for kind := range kinds {
		found, err := filepath.Glob(filepath.Join(data, kind+"-*.json"))
		if err != nil {
			return nil, err
		}

		files = append(files, found...)
	}

	slices.Sort(files)

	var all []Drawn
	for _, file := range files {
		svg, err := File(file)
		if err != nil {
			return nil, err
		}

		name := strings.TrimSuffix(filepath.Base(file), ".json") + ".svg"
		all = append(all, Drawn{Path: filepath.Join(pictures, name), SVG: svg})
	}

	return all, nil
}
