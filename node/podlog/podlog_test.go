package podlog_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/trivet-node/trivet/node/podlog"
)

func newLogs(t *testing.T) podlog.Logs {
	t.Helper()
	return podlog.Logs{Root: t.TempDir(), Links: t.TempDir()}
}

func newPod(name string, uid types.UID) *v1.Pod {
	return &v1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, UID: uid}}
}

// write makes files of these names, below the log directory of a container.
func write(t *testing.T, l podlog.Logs, i podlog.Instance, names ...string) {
	t.Helper()
	if err := l.MakeDir(i.Pod, i.Container); err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		path := filepath.Join(podlog.Dir(l.Root, i.Pod), i.Container, name)
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func list(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return out
}

func TestLayoutIsKubelets(t *testing.T) {
	pod := newPod("web", "u1")
	want := "/var/log/pods/shop_web_u1/app/3.log"
	if got := filepath.Join(podlog.Dir("/var/log/pods", pod), podlog.File("app", 3)); got != want {
		t.Errorf("log %s, want %s", got, want)
	}

	l := newLogs(t)
	for range 2 {
		if err := l.Link(podlog.Instance{
			Pod:       pod,
			Container: "app",
			Attempt:   3,
			ID:        "id",
		}); err != nil {
			t.Fatal(err)
		}
	}

	target, err := os.Readlink(filepath.Join(l.Links, "web_shop_app-id.log"))
	if want := filepath.Join(l.Root, "shop_web_u1/app/3.log"); err != nil || target != want {
		t.Errorf("the link leads to %q (%v), want %q", target, err, want)
	}
}

func TestNameOfALinkIsCut(t *testing.T) {
	l := newLogs(t)
	i := podlog.Instance{Pod: newPod(strings.Repeat("n", 253), "u1"), Container: "app", ID: "id"}
	if err := l.Link(i); err != nil {
		t.Fatal(err)
	}
	if err := l.Remove(i); err != nil {
		t.Fatal(err)
	}
	if left := list(t, l.Links); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

func TestNextAttemptFollowsTheLogsThatAreThere(t *testing.T) {
	l, pod := newLogs(t), newPod("web", "u1")
	app := podlog.Instance{Pod: pod, Container: "app"}
	if got := l.NextAttempt(pod, "app"); got != 0 {
		t.Errorf("without logs: %d", got)
	}
	write(t, l, app, "9.log", "10.log.20260102-030405.gz", "notes.txt")
	if got := l.NextAttempt(pod, "app"); got != 11 {
		t.Errorf("attempt %d, want 11", got)
	}
}

func TestOnlyTheLogsOfTheInstanceAreRemoved(t *testing.T) {
	l := newLogs(t)
	i := podlog.Instance{
		Pod:       newPod("web", "u1"),
		Container: "app",
		Attempt:   1,
		ID:        "id",
	}

	write(t, l, i, "0.log", "1.log", "1.log.20260102-030405", "1.log.20260102-030405.gz", "11.log")
	if err := l.Link(i); err != nil {
		t.Fatal(err)
	}

	for range 2 {
		if err := l.Remove(i); err != nil {
			t.Fatal(err)
		}
	}

	left := list(t, filepath.Join(podlog.Dir(l.Root, i.Pod), "app"))
	if diff := cmp.Diff([]string{"0.log", "11.log"}, left); diff != "" {
		t.Error(diff)
	}
	if left := list(t, l.Links); len(left) > 0 {
		t.Errorf("links left: %v", left)
	}
}

func TestLogsOfEarlierInstancesAreRemoved(t *testing.T) {
	l := newLogs(t)
	i := podlog.Instance{Pod: newPod("web", "u1"), Container: "app", Attempt: 10}
	write(t, l, i, "2.log", "9.log", "9.log.20260102-030405.gz", "10.log", "11.log", "notes.txt")
	for range 2 {
		if err := l.RemoveBefore(i); err != nil {
			t.Fatal(err)
		}
	}

	left := list(t, filepath.Join(podlog.Dir(l.Root, i.Pod), "app"))
	if diff := cmp.Diff([]string{"10.log", "11.log", "notes.txt"}, left); diff != "" {
		t.Error(diff)
	}
}

func TestNothingIsRemovedByANameThatIsNotOfAContainer(t *testing.T) {
	l := newLogs(t)
	pod := newPod("web", "u1")
	write(t, l, podlog.Instance{Pod: pod, Container: "app"}, "0.log")
	for _, name := range []string{"", "../shop_web_u1/app", "a/b"} {
		if err := l.Remove(podlog.Instance{Pod: pod, Container: name}); err != nil {
			t.Errorf("%q: %v", name, err)
		}
	}
	if left := list(t, filepath.Join(podlog.Dir(l.Root, pod), "app")); len(left) != 1 {
		t.Errorf("left: %v", left)
	}
}

// manyLogs has the logs of three pods, one of them without a link, and things that are not logs of pods.
func manyLogs(t *testing.T) podlog.Logs {
	t.Helper()
	l := newLogs(t)
	for uid, name := range map[types.UID]string{"u1": "live", "u2": "gone", "u3": "half-gone"} {
		i := podlog.Instance{Pod: newPod(name, uid), Container: "c", ID: "id"}
		write(t, l, i, "0.log")
		if name == "half-gone" {
			continue
		}
		if err := l.Link(i); err != nil {
			t.Fatal(err)
		}
	}

	if err := os.Mkdir(filepath.Join(l.Root, "something else"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/somewhere/else", filepath.Join(l.Links, "of others")); err != nil {
		t.Fatal(err)
	}

	return l
}

func TestLogsOfPodsThatAreGoneAreRemoved(t *testing.T) {
	for name, c := range map[string]struct {
		remove func(podlog.Logs) error
		logs   []string
		links  []string
	}{
		"all but one": {
			remove: func(l podlog.Logs) error {
				return l.RemoveUnless(func(uid types.UID) bool { return uid == "u1" })
			},
			logs:  []string{"shop_live_u1", "something else"},
			links: []string{"live_shop_c-id.log", "of others"},
		},

		"one": {
			remove: func(l podlog.Logs) error { return l.RemovePod("u1") },
			logs:   []string{"shop_gone_u2", "shop_half-gone_u3", "something else"},
			links:  []string{"gone_shop_c-id.log", "of others"},
		},

		"one that has none": {
			remove: func(l podlog.Logs) error { return l.RemovePod("u4") },
			logs:   []string{"shop_gone_u2", "shop_half-gone_u3", "shop_live_u1", "something else"},
			links:  []string{"gone_shop_c-id.log", "live_shop_c-id.log", "of others"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			l := manyLogs(t)
			if err := c.remove(l); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.logs, list(t, l.Root)); diff != "" {
				t.Errorf("logs: %s", diff)
			}
			if diff := cmp.Diff(c.links, list(t, l.Links)); diff != "" {
				t.Errorf("links: %s", diff)
			}
		})
	}
}

func TestNoLogsAtAllIsASuccess(t *testing.T) {
	none := filepath.Join(t.TempDir(), "none")
	l := podlog.Logs{Root: none, Links: none}
	if err := l.RemoveUnless(func(types.UID) bool { return false }); err != nil {
		t.Error(err)
	}
}

// A link whose log is missing may be between two steps of a rotation.
func TestLinkWithoutALogStaysWhileThePodHasLogs(t *testing.T) {
	l := newLogs(t)
	i := podlog.Instance{Pod: newPod("web", "u1"), Container: "c", ID: "id"}
	write(t, l, i, "0.log.20260102-030405")
	if err := l.Link(i); err != nil {
		t.Fatal(err)
	}
	if err := l.RemovePod("u2"); err != nil {
		t.Fatal(err)
	}
	if left := list(t, l.Links); len(left) != 1 {
		t.Errorf("links: %v", left)
	}
}
