package vm

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Marks of the part of a document that is made of the results.
const (
	beginMark = "<!-- results -->\n"
	endMark   = "<!-- end of results -->\n"
)

// Rewrite returns a document with the tables of these runs between its marks.
func Rewrite(document string, runs []Run) (string, error) {
	before, rest, begins := strings.Cut(document, beginMark)
	_, after, ends := strings.Cut(rest, endMark)
	if !begins || !ends {
		return "", fmt.Errorf("the document lacks the marks %s and %s",
			strings.TrimSpace(beginMark), strings.TrimSpace(endMark))
	}
	return before + beginMark + tables(runs) + endMark + after, nil
}

// tables are those of all runs: what ran, the sums by program, each scenario by name, benchmarks,
// and what has not passed.
func tables(runs []Run) string {
	if len(runs) == 0 {
		return "\nNothing has run yet.\n\n"
	}

	var out strings.Builder
	writeRuns(&out, runs)
	writeSums(&out, runs)
	writeScenarios(&out, runs)
	writeBenchmarks(&out, runs)
	writeRest(&out, runs)
	return out.String()
}

func writeRuns(out *strings.Builder, runs []Run) {
	out.WriteString("\n### The runs\n" +
		"| Debian | part | kernel | init | OCI runtime | machine | commit | date |\n" +
		"| --- | --- | --- | --- | --- | --- | --- | --- |\n")
	for _, r := range runs {
		fmt.Fprintf(out, "| %s | %s | %s | %s | %s | %s | %s | %s |\n", r.Debian, r.Shard, cell(r.Kernel),
			cell(r.Systemd), cell(r.Runtime), cell(r.Machine), r.Commit, r.Date)
	}
}

// key names a row: a program of a shard.
type key struct{ shard, program string }

func writeSums(out *strings.Builder, runs []Run) {
	debians := debiansOf(runs)
	out.WriteString("\n### By program\n| part | program |")
	for _, d := range debians {
		fmt.Fprintf(out, " Debian %s |", d)
	}

	out.WriteString("\n| --- | --- |" + strings.Repeat(" --- |", len(debians)) + "\n")
	for _, row := range rowsOf(runs) {
		fmt.Fprintf(out, "| %s | %s |", row.shard, row.program)
		for _, d := range debians {
			fmt.Fprintf(out, " %s |", sum(find(runs, d, row.shard), row.program))
		}

		out.WriteString("\n")
	}
}

// sum is how many tests of a program have passed, failed and were skipped, and how long they took.
func sum(r *Run, program string) string {
	if r == nil || !slices.ContainsFunc(r.Results, func(one Result) bool { return one.Program == program }) {
		return "not run"
	}

	var parts []string
	for _, o := range []Outcome{Passed, Failed, Skipped} {
		if n := r.count(program, o); n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, o))
		}
	}

	seconds := 0.0
	for _, one := range r.Results {
		if one.Program == program {
			seconds += one.Seconds
		}
	}

	return fmt.Sprintf("%s, %.0f s", strings.Join(parts, ", "), seconds)
}

// scenarios is the program whose tests are listed by name: each is of something that cgroup v2 has.
const scenarios = "e2e/scenario"

func writeScenarios(out *strings.Builder, runs []Run) {
	debians := debiansOf(runs)
	var names []string
	for _, r := range runs {
		for _, one := range r.Results {
			if one.Program == scenarios {
				names = append(names, one.Test)
			}
		}
	}

	if len(names) == 0 {
		return
	}

	slices.Sort(names)
	out.WriteString("\n### On a cluster\n| test of " + scenarios + " |")
	for _, d := range debians {
		fmt.Fprintf(out, " Debian %s |", d)
	}

	out.WriteString("\n| --- |" + strings.Repeat(" --- |", len(debians)) + "\n")
	for _, name := range slices.Compact(names) {
		fmt.Fprintf(out, "| %s |", name)
		for _, d := range debians {
			fmt.Fprintf(out, " %s |", outcomeOf(runs, d, name))
		}

		out.WriteString("\n")
	}
}

// outcomeOf is that of a scenario, in whichever shard it ran.
func outcomeOf(runs []Run, debian, test string) string {
	for _, r := range runs {
		for _, one := range r.Results {
			if r.Debian == debian && one.Program == scenarios && one.Test == test {
				return fmt.Sprintf("%s, %.0f s", one.Outcome, one.Seconds)
			}
		}
	}
	return "not run"
}

// benchmark names a row of the table of what operations take.
type benchmark struct{ program, test string }

func writeBenchmarks(out *strings.Builder, runs []Run) {
	took := operations(runs)
	if len(took) == 0 {
		return
	}

	debians := debiansOf(runs)
	out.WriteString("\n### What an operation takes\n| benchmark of | operation |")
	for _, d := range debians {
		fmt.Fprintf(out, " Debian %s |", d)
	}

	out.WriteString("\n| --- | --- |" + strings.Repeat(" --- |", len(debians)) + "\n")
	rows := slices.SortedFunc(maps.Keys(took), func(a, b benchmark) int {
		return cmp.Or(cmp.Compare(a.program, b.program), cmp.Compare(a.test, b.test))
	})
	for _, row := range rows {
		fmt.Fprintf(out, "| %s | %s |", row.program, strings.TrimPrefix(row.test, "Benchmark"))
		for _, d := range debians {
			if seconds, ran := took[row][d]; ran {
				fmt.Fprintf(out, " %.2f ms |", seconds*1000)
			} else {
				out.WriteString(" not run |")
			}
		}

		out.WriteString("\n")
	}
}

// operations are the seconds of one of each benchmark, by version of Debian.
func operations(runs []Run) map[benchmark]map[string]float64 {
	took := map[benchmark]map[string]float64{}
	for _, r := range runs {
		for _, one := range r.Results {
			if one.Operation == 0 {
				continue
			}

			row := benchmark{one.Program, one.Test}
			if took[row] == nil {
				took[row] = map[string]float64{}
			}
			took[row][r.Debian] = one.Operation
		}
	}
	return took
}

func writeRest(out *strings.Builder, runs []Run) {
	out.WriteString("\n### What did not pass\n")
	head := "| Debian | program | test | outcome | message |\n| --- | --- | --- | --- | --- |\n"
	found := false
	for _, r := range runs {
		for _, one := range r.Results {
			if one.Outcome == Passed {
				continue
			}
			if !found {
				out.WriteString(head)
			}

			found = true
			fmt.Fprintf(out, "| %s | %s | %s | %s | %s |\n",
				r.Debian, one.Program, cell(one.Test), one.Outcome, cell(one.Message))
		}
	}

	if !found {
		out.WriteString("Nothing.\n")
	}
	out.WriteString("\n")
}

func debiansOf(runs []Run) []string {
	var all []string
	for _, r := range runs {
		all = append(all, r.Debian)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

func rowsOf(runs []Run) []key {
	var all []key
	for _, r := range runs {
		for _, one := range r.Results {
			all = append(all, key{r.Shard, one.Program})
		}
	}

	slices.SortFunc(all, func(a, b key) int {
		return cmp.Or(cmp.Compare(a.shard, b.shard), cmp.Compare(a.program, b.program))
	})
	return slices.Compact(all)
}

func find(runs []Run, debian, shard string) *Run {
	for i := range runs {
		if runs[i].Debian == debian && runs[i].Shard == shard {
			return &runs[i]
		}
	}
	return nil
}

// cell is text as a cell of a table has it.
func cell(text string) string {
	text = strings.Join(strings.Fields(text), " ")
	return strings.NewReplacer("|", `\|`, "<", "&lt;", "[", `\[`, "*", `\*`).Replace(text)
}
