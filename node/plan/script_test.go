package plan_test

import (
	"bufio"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	v1 "k8s.io/api/core/v1"

	"github.com/trivet-node/trivet/node/plan"
)

var update = flag.Bool("update", false, "write what happens into the scripts")

// Each file in testdata is the life of one pod. Lines that begin with a word are what happens to the pod, and
// the indented lines below are what the plan does then: the steps that it begins or cancels, when it wants to
// be asked again, and the status where it changes. testdata/README.md explains the words.
func TestPodLives(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts: %v", err)
	}

	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}

			got, err := play(string(want))
			if err != nil {
				t.Fatal(err)
			}

			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}

				return
			}

			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Errorf("-script +now (go test ./node/plan -update writes it):\n%s", diff)
			}
		})
	}
}

const indent = "    "

// play plays a script and returns it with what happens now.
func play(script string) (string, error) {
	s := &stage{}
	lines := bufio.NewScanner(strings.NewReader(script))
	for n := 1; lines.Scan(); n++ {
		line := lines.Text()
		switch {
		case strings.HasPrefix(line, indent):
			continue
		case line == "", strings.HasPrefix(line, "#"):
			s.out.WriteString(line + "\n")
			continue
		}

		s.out.WriteString(line + "\n")
		if err := s.happen(strings.Fields(line)); err != nil {
			return "", fmt.Errorf("line %d: %s: %w", n, line, err)
		}
	}

	return s.out.String(), lines.Err()
}

// stage is where a script is played.
type stage struct {
	*world
	out    strings.Builder
	shown  string    // the status as it was printed last
	wakeAt time.Time // the last decision's
}

func (s *stage) print(format string, a ...any) { fmt.Fprintf(&s.out, indent+format+"\n", a...) }

// lookOnce looks at the pod, begins the steps and prints what is new.
func (s *stage) lookOnce([]string) error {
	before := slices.Clone(s.flying)
	d := s.look(nil)
	if err := s.check(d, before); err != nil {
		return err
	}

	for _, k := range d.Cancel {
		s.print("cancel %s", k)
	}

	if len(d.Steps) > 0 {
		var steps []string
		for _, step := range d.Steps {
			steps = append(steps, describe(step))
		}

		s.print("begin  %s", strings.Join(steps, ", "))
	}

	s.report(d)
	if now := summary(&s.api.Status); !s.gone && now != s.shown {
		s.shown = now
		s.print("status %s", now)
	}

	if d.Requeue != s.wakeAt && !d.Requeue.IsZero() {
		s.print("again  in %s", d.Requeue.Sub(s.now))
	}

	s.wakeAt = d.Requeue
	return nil
}

// run looks and ends all steps until nothing happens any more.
func (s *stage) run([]string) error {
	for range 100 {
		before := s.api.Status.DeepCopy()
		if err := s.lookOnce(nil); err != nil {
			return err
		}
		if len(s.flying) == 0 && cmp.Equal(before, &s.api.Status) {
			return nil
		}
		if err := s.endSteps([]string{"all"}); err != nil {
			return err
		}
		if s.forgot {
			return nil
		}
	}

	return errors.New("it does not come to rest")
}

// describe is a step as scripts have it.
func describe(s plan.Step) string {
	out := s.Key().String()
	switch s.Verb {
	case plan.CreateSandbox, plan.Start:
		if s.Attempt > 0 {
			out += fmt.Sprintf(" #%d", s.Attempt)
		}

	case plan.Pull:
		if s.Image != s.Name {
			out += " " + s.Image
		}

	case plan.Stop:
		out += fmt.Sprintf(" (%s, %s)", s.Why, s.Grace)
	}

	return out
}

// summary is a status in a line.
func summary(s *v1.PodStatus) string {
	out := string(s.Phase)
	if s.Reason != "" {
		out += " " + s.Reason
	}

	for _, c := range s.Conditions {
		if c.Type == v1.PodReady && c.Status == v1.ConditionTrue {
			out += ", ready"
		}
	}

	all := slices.Concat(s.InitContainerStatuses, s.ContainerStatuses, s.EphemeralContainerStatuses)
	for _, c := range all {
		out += " | " + c.Name
		if c.RestartCount > 0 {
			out += fmt.Sprintf("#%d", c.RestartCount)
		}

		switch {
		case c.State.Running != nil && !c.Ready &&
			slices.ContainsFunc(s.ContainerStatuses, func(x v1.ContainerStatus) bool {
				return x.Name == c.Name
			}):
			out += " running, not ready"

		case c.State.Running != nil:
			out += " running"
		case c.State.Terminated != nil:
			out += fmt.Sprintf(" ended %d %s", c.State.Terminated.ExitCode, c.State.Terminated.Reason)
		case c.State.Waiting != nil:
			out += " " + c.State.Waiting.Reason
		}
	}

	return out
}
