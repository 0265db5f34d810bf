package page

import (
	"cmp"
	"go/ast"
	"slices"
)

// Type is a declared type, with what is declared of it in the files of its package that are not tests.
type Type struct {
	// Dir is the directory of its package.
	Dir  string
	Name string
	// Fields counts the fields of a struct, an embedded one as one. It is 0 for other types.
	Fields int
	// Methods counts those that are declared for the type, or that an interface asks for.
	Methods int
}

// Types returns the types of the product's files, those with the most methods first.
func Types(sources []Source) []Type {
	type key struct{ dir, name string }
	all := map[key]*Type{}
	at := func(dir, name string) *Type {
		k := key{dir, name}
		if all[k] == nil {
			all[k] = &Type{Dir: dir, Name: name}
		}
		return all[k]
	}

	for _, s := range sources {
		if s.IsTest() {
			continue
		}

		for _, decl := range s.File.Decls {
			switch decl := decl.(type) {
			case *ast.FuncDecl:
				if name := receiver(decl); name != "" {
					at(s.Dir(), name).Methods++
				}
			case *ast.GenDecl:
				for _, spec := range decl.Specs {
					if spec, ok := spec.(*ast.TypeSpec); ok {
						describe(at(s.Dir(), spec.Name.Name), spec.Type)
					}
				}
			}
		}
	}

	var types []Type
	for _, t := range all {
		types = append(types, *t)
	}
	slices.SortFunc(types, func(a, b Type) int {
		return cmp.Or(
			cmp.Compare(b.Methods, a.Methods),
			cmp.Compare(b.Fields, a.Fields),
			cmp.Compare(a.Dir, b.Dir),
			cmp.Compare(a.Name, b.Name),
		)
	})
	return types
}

func describe(t *Type, expr ast.Expr) {
	switch expr := expr.(type) {
	case *ast.StructType:
		t.Fields = fields(expr.Fields)
	case *ast.InterfaceType:
		t.Methods = fields(expr.Methods)
	}
}

func fields(list *ast.FieldList) int {
	n := 0
	for _, field := range list.List {
		n += max(1, len(field.Names))
	}
	return n
}
