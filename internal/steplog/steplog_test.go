package steplog

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestStepsAreReadAsTheyWereWritten(t *testing.T) {
	file := filepath.Join(t.TempDir(), "steps")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}

	t.Setenv(Variable, file)
	t.Setenv("TRACEPARENT", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
	log := FromEnvironment()
	endOuter := log.Begin("attach interface")
	log.Begin("reserve address")()
	endOuter()

	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()

	steps := Read(f)
	if len(steps) != 2 || steps[0].Name != "reserve address" || steps[1].Name != "attach interface" {
		t.Fatalf("%+v", steps)
	}
	if outer, inner := steps[1], steps[0]; inner.Began.Before(outer.Began) || inner.Ended.After(outer.Ended) {
		t.Errorf("the inner step %+v is not within the outer one %+v", inner, outer)
	}
}

func TestNobodyWantsSteps(t *testing.T) {
	t.Setenv("TRACEPARENT", "")
	t.Setenv(Variable, filepath.Join(t.TempDir(), "steps"))
	if log := FromEnvironment(); log != nil {
		t.Errorf("%+v", log)
	}
	(*Log)(nil).Begin("reserve address")()
}

func TestAFileThatIsGoneCostsTheStepAlone(t *testing.T) {
	(&Log{filepath.Join(t.TempDir(), "gone")}).Begin("reserve address")()
}

func FuzzRead(f *testing.F) {
	f.Add("1 2 attach\n")
	f.Add("2 1 ends before it begins\nx\n 1\n")
	f.Add(strings.Repeat("1 2 a\n", 100))
	f.Fuzz(func(t *testing.T, text string) {
		steps := Read(strings.NewReader(text))
		if len(steps) > maxSteps {
			t.Errorf("%d steps", len(steps))
		}
		for _, s := range steps {
			if s.Name == "" || s.Ended.Before(s.Began) {
				t.Errorf("%+v", s)
			}
		}
	})
}
