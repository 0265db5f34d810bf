package absent_test

import (
	"context"
	"errors"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/trivet-node/trivet/internal/kube/absent"
)

func node(name string) metav1.Object { return &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}} }

func TestWhatIsNotFoundAsOfTheVersionHasGone(t *testing.T) {
	for what, c := range map[string]struct {
		found   int
		version string
		err     error
		isLeft  bool
	}{
		"gone":              {0, "110", nil, false},
		"gone later":        {0, "120", nil, false},
		"there":             {1, "110", nil, true},
		"not there, before": {0, "90", nil, true},
		"no answer":         {0, "", errors.New("unavailable"), true},
	} {
		asked := 0
		list := func(context.Context, string, string) (int, string, error) {
			asked++
			if asked == 1 {
				return 0, "110", nil
			}
			return c.found, c.version, c.err
		}

		left := absent.Left(t.Context(), []metav1.Object{node("a"), node("b")}, "110", list)
		if (left != nil) != c.isLeft || left != nil && left.GetName() != "b" || asked != 2 {
			t.Errorf("%s: left %v, asked %d times", what, left, asked)
		}
	}
}

func TestManyAreNotAskedFor(t *testing.T) {
	many := make([]metav1.Object, absent.Most+1)
	for i := range many {
		many[i] = node("n")
	}
	list := func(context.Context, string, string) (int, string, error) {
		t.Error("asked")
		return 0, "110", nil
	}
	if absent.Left(t.Context(), many, "110", list) == nil {
		t.Error("they have gone")
	}
}

func TestOnlyWhatTheListLacksIsAbsent(t *testing.T) {
	known := map[string]metav1.Object{"a": node("a"), "b": node("b")}
	got := absent.From(known, map[string]metav1.Object{"a": node("a"), "c": node("c")})
	if len(got) != 1 || got[0].GetName() != "b" {
		t.Errorf("absent %v", got)
	}
}

func TestANameIsAddedToASelector(t *testing.T) {
	for selector, want := range map[string]string{
		"":                "metadata.name=a",
		"spec.nodeName=n": "spec.nodeName=n,metadata.name=a",
	} {
		if got := absent.Selector(selector, "a"); got != want {
			t.Errorf("%q: %q", selector, got)
		}
	}
}
