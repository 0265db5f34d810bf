package page

import (
	"go/ast"
	"slices"
	"strings"
)

// manyFields is the number of fields from which a literal has one of them a line.
const manyFields = 4

// Crowded returns the numbers of the lines on which a composite literal of four or more named fields has two
// of them. The rows of a table are not meant: elements of a slice or map that leave their type out and fit on
// a line read better in columns. Nor are maps of one line.
func (s Source) Crowded() []int {
	rows := s.rows()
	var lines []int
	ast.Inspect(s.File, func(n ast.Node) bool {
		literal, ok := n.(*ast.CompositeLit)
		if !ok || len(literal.Elts) < manyFields || !named(literal) {
			return true
		}

		_, isMap := literal.Type.(*ast.MapType)
		oneLine := s.line(literal.Lbrace) == s.line(literal.Rbrace)
		if oneLine && (isMap || rows[literal]) {
			return true
		}

		lines = append(lines, s.sharedLines(literal)...)
		return true
	})
	slices.Sort(lines)
	return slices.Compact(lines)
}

// rows are the elements that leave their type out.
func (s Source) rows() map[*ast.CompositeLit]bool {
	rows := map[*ast.CompositeLit]bool{}
	ast.Inspect(s.File, func(n ast.Node) bool {
		table, ok := n.(*ast.CompositeLit)
		if !ok {
			return true
		}

		for _, element := range table.Elts {
			if pair, ok := element.(*ast.KeyValueExpr); ok {
				element = pair.Value
			}
			if row, ok := element.(*ast.CompositeLit); ok && row.Type == nil {
				rows[row] = true
			}
		}
		return true
	})
	return rows
}

func named(literal *ast.CompositeLit) bool {
	for _, element := range literal.Elts {
		if _, ok := element.(*ast.KeyValueExpr); !ok {
			return false
		}
	}
	return true
}

func (s Source) sharedLines(literal *ast.CompositeLit) []int {
	var lines []int
	for i, element := range literal.Elts[1:] {
		before := literal.Elts[i]
		if s.line(before.End()) == s.line(element.Pos()) {
			lines = append(lines, s.line(element.Pos()))
		}
	}
	return lines
}

// Behind returns the numbers of the lines inside functions that have a comment behind code.
func (s Source) Behind() []int {
	inside := map[int]bool{}
	for _, fn := range s.Functions() {
		for line := fn.Line; line < fn.Line+fn.Length; line++ {
			inside[line] = true
		}
	}

	var lines []int
	for _, group := range s.File.Comments {
		line := s.line(group.Pos())
		text := strings.TrimSpace(s.Lines[line-1])
		directive := strings.Contains(text, "//nolint")
		if inside[line] && !directive && !strings.HasPrefix(text, "//") && !strings.HasPrefix(text, "/*") {
			lines = append(lines, line)
		}
	}
	return lines
}
