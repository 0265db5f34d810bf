package page

import (
	"go/ast"
	"strings"
)

// Function is a declared function or method.
type Function struct {
	// Name is that of the function; a method's is its type's and its own, as in "Store.Put".
	Name string
	// Line is where the declaration begins.
	Line int
	// Length counts all lines, from that of func to that of the closing brace.
	Length int
	// Blank and Comments count the lines of the body that are empty or hold nothing but a comment.
	Blank    int
	Comments int
}

// longFunction is the length from which a function needs paragraphs.
const longFunction = 25

// Dense reports whether a function of 25 lines or more has neither an empty line nor one with a comment.
func (f Function) Dense() bool { return f.Length >= longFunction && f.Blank+f.Comments == 0 }

// Functions returns the declared functions of the file, in order. Function literals are part of the function
// that they stand in.
func (s Source) Functions() []Function {
	var functions []Function
	for _, decl := range s.File.Decls {
		fn, ok := decl.(*ast.FuncDecl)
		if !ok || fn.Body == nil {
			continue
		}

		first, last := s.line(fn.Pos()), s.line(fn.End())
		measured := Function{
			Name:   name(fn),
			Line:   first,
			Length: last - first + 1,
		}
		for _, text := range s.Lines[first-1 : last] {
			text = strings.TrimSpace(text)
			switch {
			case text == "":
				measured.Blank++
			case strings.HasPrefix(text, "//"):
				measured.Comments++
			}
		}
		functions = append(functions, measured)
	}
	return functions
}

func name(fn *ast.FuncDecl) string {
	if receiver := receiver(fn); receiver != "" {
		return receiver + "." + fn.Name.Name
	}
	return fn.Name.Name
}

// receiver is the name of the type whose method it is, or empty.
func receiver(fn *ast.FuncDecl) string {
	if fn.Recv == nil || len(fn.Recv.List) == 0 {
		return ""
	}

	expr := fn.Recv.List[0].Type
	for {
		switch inner := expr.(type) {
		case *ast.StarExpr:
			expr = inner.X
		case *ast.IndexExpr:
			expr = inner.X
		case *ast.IndexListExpr:
			expr = inner.X
		case *ast.Ident:
			return inner.Name
		default:
			return ""
		}
	}
}

// IsTestFunction reports whether the go command runs the function as a test or a fuzz target.
func (f Function) IsTestFunction() bool {
	return strings.HasPrefix(f.Name, "Test") && f.Name != "TestMain" || strings.HasPrefix(f.Name, "Fuzz")
}

// Calls returns the numbers of the lines that call a function of an imported package, as in
// Calls("time", "Sleep"). It goes by the package's usual name.
func (s Source) Calls(pkg, function string) []int {
	var lines []int
	ast.Inspect(s.File, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok {
			return true
		}

		selector, ok := call.Fun.(*ast.SelectorExpr)
		if !ok || selector.Sel.Name != function {
			return true
		}

		if from, ok := selector.X.(*ast.Ident); ok && from.Name == pkg {
			lines = append(lines, s.line(call.Pos()))
		}
		return true
	})
	return lines
}
