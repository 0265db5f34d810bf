package page

import (
	"slices"
	"strings"
)

// Figures are the sums of a set of files.
type Figures struct {
	Packages  int
	Files     int
	Lines     int
	TestLines int
	// Over110 and Over120 count lines that are wider than that, of tests too.
	Over110 int
	Over120 int
	// Crowded, Behind and Sleeps count lines as the functions of those names find them; Sleeps are those of
	// the product.
	Crowded int
	Behind  int
	Sleeps  int
	// Functions are those of the product.
	Functions int
	// Median, P95 and Longest are lengths of functions; Over60 counts those of more than 60 lines.
	Median  int
	P95     int
	Longest int
	Over60  int
	// Long counts functions of 25 lines or more, Dense those of them without paragraphs.
	Long  int
	Dense int
	// BlankShare and CommentShare are percentages of the lines of functions.
	BlankShare   float64
	CommentShare float64
	// Tests counts test functions and fuzz targets, RootTests those of them that need root.
	Tests     int
	RootTests int
	// Untested are the directories of packages without a test file.
	Untested []string
}

// Count sums up the files.
func Count(sources []Source) Figures {
	var f Figures
	var lengths []int
	var inside, blank, comments int
	packages, tested := map[string]bool{}, map[string]bool{}

	for _, s := range sources {
		f.Files++
		f.Over110 += len(s.Wide(110))
		f.Over120 += len(s.Wide(120))
		f.Crowded += len(s.Crowded())
		if s.IsTest() {
			f.TestLines += len(s.Lines)
			tested[s.Dir()] = true
			f.countTests(s)
			continue
		}

		f.Lines += len(s.Lines)
		f.Behind += len(s.Behind())
		f.Sleeps += len(s.Calls("time", "Sleep"))
		packages[s.Dir()] = true
		for _, fn := range s.Functions() {
			lengths = append(lengths, fn.Length)
			inside += fn.Length
			blank += fn.Blank
			comments += fn.Comments
			f.countFunction(fn)
		}
	}

	f.Packages = len(packages)
	f.Functions = len(lengths)
	f.Median, f.P95, f.Longest = spread(lengths)
	f.BlankShare = share(blank, inside)
	f.CommentShare = share(comments, inside)
	for dir := range packages {
		if !tested[dir] {
			f.Untested = append(f.Untested, dir)
		}
	}
	slices.Sort(f.Untested)
	return f
}

func (f *Figures) countTests(s Source) {
	for _, fn := range s.Functions() {
		if !fn.IsTestFunction() {
			continue
		}
		f.Tests++
		if s.NeedsRoot() {
			f.RootTests++
		}
	}
}

func (f *Figures) countFunction(fn Function) {
	if fn.Length > 60 {
		f.Over60++
	}
	if fn.Length >= longFunction {
		f.Long++
	}
	if fn.Dense() {
		f.Dense++
	}
}

// spread returns the median, the 95th percentile and the maximum.
func spread(values []int) (median, p95, longest int) {
	if len(values) == 0 {
		return 0, 0, 0
	}
	slices.Sort(values)
	return values[len(values)/2], values[len(values)*95/100], values[len(values)-1]
}

func share(part, whole int) float64 {
	if whole == 0 {
		return 0
	}
	return 100 * float64(part) / float64(whole)
}

// Below returns the files in the directory and below it.
func Below(sources []Source, dir string) []Source {
	var below []Source
	for _, s := range sources {
		if s.Dir() == dir || strings.HasPrefix(s.Path, dir+"/") {
			below = append(below, s)
		}
	}
	return below
}
