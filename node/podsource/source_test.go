package podsource

import (
	"log/slog"
	"slices"
	"testing"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/trivet-node/trivet/node/manifest"
)

func source(t *testing.T) (*Source, *[]types.UID) {
	t.Helper()
	var told []types.UID
	return New(func(uid types.UID) { told = append(told, uid) }, discard), &told
}

func version(uid, rv string) *v1.Pod {
	return &v1.Pod{ObjectMeta: metav1.ObjectMeta{
		UID:             types.UID(uid),
		Name:            "p",
		Namespace:       "n",
		ResourceVersion: rv,
	}}
}

func TestLateEventsDoNotReplaceWhatIsNewer(t *testing.T) {
	s, told := source(t)
	a := (*apiStore)(s)
	if err := a.Replace([]any{version("u", "5")}, "5"); err != nil {
		t.Fatal(err)
	}

	for _, late := range []string{"4", "5"} {
		if err := a.Update(version("u", late)); err != nil {
			t.Fatal(err)
		}
	}

	if got := s.Get("u").ResourceVersion; got != "5" || len(*told) != 1 {
		t.Errorf("version %s after late events, told %v", got, *told)
	}

	s.Saw(version("u", "9"))
	if err := a.Update(version("u", "8")); err != nil {
		t.Fatal(err)
	}
	if got := s.Get("u").ResourceVersion; got != "9" {
		t.Errorf("the watch took version %s over the answer of our own write", got)
	}
}

func TestAPodOfTheSameNameIsAnotherPod(t *testing.T) {
	s, told := source(t)
	a := (*apiStore)(s)
	for _, do := range []error{
		a.Add(version("old", "1")),
		a.Add(version("new", "3")),
		a.Delete(version("old", "2")),
	} {
		if do != nil {
			t.Fatal(do)
		}
	}

	if s.Get("old") != nil || s.Get("new") == nil || !slices.Equal(*told, []types.UID{"old", "new", "old"}) {
		t.Errorf("pods %v, told %v", s.List(), *told)
	}

	s.Saw(version("old", "9"))
	if s.Get("old") != nil {
		t.Error("the answer to a write brought a deleted pod back")
	}
}

func TestARelistTellsWhatWentMissing(t *testing.T) {
	s, told := source(t)
	a := (*apiStore)(s)
	if err := a.Replace([]any{version("a", "1"), version("b", "1")}, "1"); err != nil {
		t.Fatal(err)
	}

	*told = nil
	if err := a.Replace([]any{version("b", "1")}, "7"); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(*told, []types.UID{"a"}) || s.Get("a") != nil {
		t.Errorf("told %v", *told)
	}
}

// A mirror carries the annotations of its static pod, and anybody may write such ones to a pod of the API.
func TestPodsOfTheAPIAreNotStatic(t *testing.T) {
	s, _ := source(t)
	forged := version("u", "1")
	forged.Annotations = map[string]string{manifest.AnnotationSource: manifest.SourceFile}
	a := (*apiStore)(s)
	if err := a.Replace([]any{forged}, "1"); err != nil {
		t.Fatal(err)
	}
	if Static(s.Get("u")) {
		t.Error("a pod of the API counts as one of a manifest")
	}
	if err := a.Replace(nil, "2"); err != nil {
		t.Fatal(err)
	}
	if s.Get("u") != nil {
		t.Error("it outlives its object")
	}
}

var discard = slog.New(slog.DiscardHandler)
