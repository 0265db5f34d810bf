package page_test

import (
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"

	"github.com/trivet-node/trivet/internal/page"
)

func read(t *testing.T, text string) page.Source {
	t.Helper()
	sources, err := page.Read(fstest.MapFS{"a/b.go": {Data: []byte(text)}})
	if err != nil {
		t.Fatal(err)
	}
	if len(sources) != 1 {
		t.Fatalf("%d files were read, want 1", len(sources))
	}
	return sources[0]
}

func TestTabsReachTheNextColumnOfFour(t *testing.T) {
	for line, want := range map[string]int{"": 0, "\t": 4, "ab\tc": 5, "äö": 2, "\t\tx": 9} {
		if got := page.Width(line); got != want {
			t.Errorf("width of %q is %d, want %d", line, got, want)
		}
	}
}

func TestHiddenFilesAndTestdataAreNotRead(t *testing.T) {
	file := &fstest.MapFile{Data: []byte("package p\n")}
	sources, err := page.Read(fstest.MapFS{
		"a.go":             file,
		"nested/b.go":      file,
		"testdata/c.go":    file,
		".hidden/d.go":     file,
		"nested/readme.md": file,
	})
	if err != nil {
		t.Fatal(err)
	}

	var got []string
	for _, s := range sources {
		got = append(got, s.Path)
	}
	if want := []string{"a.go", "nested/b.go"}; !slices.Equal(got, want) {
		t.Errorf("read %v, want %v", got, want)
	}
}

func TestFileThatDoesNotParseIsNamed(t *testing.T) {
	_, err := page.Read(fstest.MapFS{"a/broken.go": {Data: []byte("package")}})
	if err == nil || !strings.Contains(err.Error(), "a/broken.go") {
		t.Errorf("error %v does not name the file", err)
	}
}

func TestFunctionIsMeasured(t *testing.T) {
	s := read(t, `package p

// Put is documented.
func (s *Store[K]) Put() {
	// why
	a()

	b()
}
`)
	want := []page.Function{{Name: "Store.Put", Line: 4, Length: 6, Blank: 1, Comments: 1}}
	if diff := cmp.Diff(want, s.Functions()); diff != "" {
		t.Error(diff)
	}
}

func TestDenseIsALongFunctionWithoutParagraphs(t *testing.T) {
	body := strings.Repeat("\ta()\n", 23)
	long := read(t, "package p\n\nfunc f() {\n"+body+"}\n").Functions()[0]
	if !long.Dense() {
		t.Errorf("%+v is not dense", long)
	}

	aired := read(t, "package p\n\nfunc f() {\n"+body+"\n\ta()\n}\n").Functions()[0]
	if aired.Dense() {
		t.Errorf("%+v is dense", aired)
	}

	short := read(t, "package p\n\nfunc f() {\n"+body[5:]+"}\n").Functions()[0]
	if short.Dense() {
		t.Errorf("%+v is dense", short)
	}
}

func TestFieldsThatShareALineAreCrowded(t *testing.T) {
	for literal, crowded := range map[string]bool{
		"T{A: 1, B: 2, C: 3, D: 4}":                      true,
		"T{A: 1, B: 2, C: 3}":                            false,
		"T{1, 2, 3, 4}":                                  false,
		"T{\nA: 1,\nB: 2,\nC: 3,\nD: 4,\n}":              false,
		"T{\nA: 1, B: 2,\nC: 3,\nD: 4,\n}":               true,
		"[]T{{A: 1, B: 2, C: 3, D: 4}}":                  false,
		"[]T{{A: 1, B: 2,\nC: 3, D: 4}}":                 true,
		"map[string]int{`a`: 1, `b`: 2, `c`: 3, `d`: 4}": false,
	} {
		s := read(t, "package p\n\nvar x = "+literal+"\n")
		if got := len(s.Crowded()) > 0; got != crowded {
			t.Errorf("%s: crowded is %t, want %t", literal, got, crowded)
		}
	}
}

func TestCommentsBehindCodeOfFunctionsAreFound(t *testing.T) {
	s := read(t, `package p

const unit = 4 // KiB

func f() {
	a() // behind
	// above
	b() //nolint:x // a directive
}
`)
	if got := s.Behind(); !slices.Equal(got, []int{6}) {
		t.Errorf("lines %v, want [6]", got)
	}
}

func TestMethodsOfAllFilesOfAPackageAreCounted(t *testing.T) {
	const typ = "package p\n\ntype T struct {\n\tA, B int\n\tC\n}\n\nfunc (t T) One() {}\n"
	sources, err := page.Read(fstest.MapFS{
		"p/a.go":      {Data: []byte(typ)},
		"p/b.go":      {Data: []byte("package p\n\nfunc (t *T) Two() {}\n\ntype I interface{ M() }\n")},
		"p/a_test.go": {Data: []byte("package p\n\nfunc (t *T) Three() {}\n")},
		"q/a.go":      {Data: []byte("package q\n\nfunc (t *T) Four() {}\n")},
	})
	if err != nil {
		t.Fatal(err)
	}

	want := []page.Type{
		{Dir: "p", Name: "T", Fields: 3, Methods: 2},
		{Dir: "p", Name: "I", Methods: 1},
		{Dir: "q", Name: "T", Methods: 1},
	}
	if diff := cmp.Diff(want, page.Types(sources)); diff != "" {
		t.Error(diff)
	}
}

func TestFiguresOfAPackage(t *testing.T) {
	sources, err := page.Read(fstest.MapFS{
		"p/a.go":           {Data: []byte("package p\n\nimport \"time\"\n\nfunc f() { time.Sleep(1) }\n")},
		"p/a_test.go":      {Data: []byte("package p\n\nfunc TestA() {}\n\nfunc helper() {}\n")},
		"p/b_root_test.go": {Data: []byte("package p\n\nfunc TestB() {}\n\nfunc FuzzC() {}\n")},
		"q/a.go":           {Data: []byte("package q\n")},
	})
	if err != nil {
		t.Fatal(err)
	}

	got := page.Count(sources)
	want := page.Figures{
		Packages:  2,
		Files:     4,
		Lines:     6,
		TestLines: 10,
		Sleeps:    1,
		Functions: 1,
		Median:    1,
		P95:       1,
		Longest:   1,
		Tests:     3,
		RootTests: 2,
		Untested:  []string{"q"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}
