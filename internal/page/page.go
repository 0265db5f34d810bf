// Package page measures Go source as its reader meets it: the width of lines, the length and density of
// functions, literals that hide their fields, the size of types. The rules of the house (page_test.go in the
// root of the repository) and the table that `make page` prints are made from the same measures.
//
// A line's width counts a tab as the columns up to the next multiple of four.
package page

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"strings"
	"unicode/utf8"
)

// Source is one Go file.
type Source struct {
	// Path is relative to the root that was read, with slashes.
	Path string
	// Lines are its lines, the first at 0.
	Lines []string
	File  *ast.File

	positions *token.FileSet
}

// Read parses every Go file below the root, but for those in testdata and in directories whose names begin
// with a dot. Files of nested modules are read, too.
func Read(root fs.FS) ([]Source, error) {
	var sources []Source
	err := fs.WalkDir(root, ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}

		base := entry.Name()
		hidden := strings.HasPrefix(base, ".") && name != "."
		if entry.IsDir() && (hidden || base == "testdata") {
			return fs.SkipDir
		}

		if entry.IsDir() || path.Ext(name) != ".go" {
			return nil
		}

		source, err := readFile(root, name)
		if err != nil {
			return err
		}
		sources = append(sources, source)
		return nil
	})
	return sources, err
}

func readFile(root fs.FS, name string) (Source, error) {
	text, err := fs.ReadFile(root, name)
	if err != nil {
		return Source{}, err
	}

	positions := token.NewFileSet()
	file, err := parser.ParseFile(positions, name, text, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return Source{}, fmt.Errorf("parse %w", err)
	}

	return Source{
		Path:      name,
		Lines:     strings.Split(strings.TrimSuffix(string(text), "\n"), "\n"),
		File:      file,
		positions: positions,
	}, nil
}

// Dir is the directory of the file, "." for the root.
func (s Source) Dir() string { return path.Dir(s.Path) }

// IsTest reports whether the file is compiled into tests only.
func (s Source) IsTest() bool { return strings.HasSuffix(s.Path, "_test.go") }

// NeedsRoot reports whether the tests of the file need root, which the names of such files say.
func (s Source) NeedsRoot() bool { return strings.HasSuffix(s.Path, "_root_test.go") }

// Imports are the paths that the file imports.
func (s Source) Imports() []string {
	var paths []string
	for _, spec := range s.File.Imports {
		paths = append(paths, strings.Trim(spec.Path.Value, `"`))
	}
	return paths
}

func (s Source) line(p token.Pos) int { return s.positions.Position(p).Line }

// Wide returns the numbers of the lines that are wider than the limit.
func (s Source) Wide(limit int) []int {
	var lines []int
	for i, text := range s.Lines {
		if Width(text) > limit {
			lines = append(lines, i+1)
		}
	}
	return lines
}

const tab = 4

// Width is the number of columns that a line takes.
func Width(line string) int {
	columns := 0
	for len(line) > 0 {
		r, size := utf8.DecodeRuneInString(line)
		line = line[size:]
		if r == '\t' {
			columns += tab - columns%tab
		} else {
			columns++
		}
	}
	return columns
}
