package check

import (
	"context"
	"errors"
	"strings"
	"testing"
)

// rule answers calls that have a text in them.
type rule struct{ call, answer string }

// cluster answers by the first rule that fits.
type cluster []rule

func (c cluster) answer(call string) (string, error) {
	for _, r := range c {
		if !strings.Contains(call, r.call) {
			continue
		}
		if failed, ok := strings.CutPrefix(r.answer, "error: "); ok {
			return "", errors.New(failed)
		}
		return r.answer, nil
	}
	return "", nil
}

func (c cluster) Kubectl(_ context.Context, stdin string, args ...string) (string, error) {
	return c.answer("kubectl " + strings.Join(args, " ") + "\n" + stdin)
}

func (c cluster) OnNode(_ context.Context, node, script string) (string, error) {
	return c.answer(node + ": " + script)
}

// works is a cluster on which nothing is wrong.
var works = cluster{
	{"get pod ports-n1", "10.0.0.1"},
	{"get pod ports-n2", "10.0.0.2"},
	{"10.0.0.1:18080", `{"host":"ports-n1"}`},
	{"10.0.0.2:18080", `{"host":"ports-n2"}`},
	{"get pod limits-", "OOMKilled"},
	{"cat /data/file", "before\n"},
}

// all are the checks of a cluster that has everything.
func all(c cluster) Checks {
	return Checks{
		Cluster:   c,
		Nodes:     []string{"n1", "n2"},
		Claims:    true,
		Snapshots: true,
	}
}

func TestClusterThatWorksPasses(t *testing.T) {
	if err := all(works).Run(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestWhatIsWrongIsNamedWithItsNode(t *testing.T) {
	for _, c := range []struct {
		wrong rule
		want  string
	}{
		{rule{"n2: curl", "error: timed out"}, "from n2: timed out"},
		{rule{"10.0.0.2:18080", `{"host":"ports-n1"}`}, "another pod answers"},
		{rule{"name: limits-n2", "error: no such field"}, "no such field"},
		{rule{"create namespace", "error: forbidden"}, "forbidden"},
		{rule{"get pod limits-n2", "Error"}, "pod on n2 that takes more"},
		{rule{"capacity.storage", "error: timed out"}, "made larger: timed out"},
		{rule{"exec restored-n2 -- cat", "after\n"}, "volume on n2 that was made of a snapshot"},
	} {
		err := all(append(cluster{c.wrong}, works...)).Run(t.Context())
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want %q", c.wrong.call, err, c.want)
		}
	}
}

func TestManifestsNameTheNode(t *testing.T) {
	for name, text := range map[string]string{
		"ports":     ports,
		"limits":    limits,
		"growth":    growth,
		"snapshots": snapshots,
		"restored":  restored,
	} {
		if !strings.Contains(text, "name: "+name+"-NODE") {
			t.Errorf("%s.yaml:\n%s", name, text)
		}
	}
}
