package usage

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"sync/atomic"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/types"

	counters "github.com/trivet-node/trivet/internal/cgroup/usage"
	"github.com/trivet-node/trivet/node/plan"
	"github.com/trivet-node/trivet/node/runtime"
)

// heading is a line with the name of the file that follows.
var heading = regexp.MustCompile(`(?m)^-- (\S+) --\n`)

// recorded writes the files of an archive below a new directory.
func recorded(t testing.TB, archive string) (root string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", archive))
	if err != nil {
		t.Fatal(err)
	}

	root = t.TempDir()
	names := heading.FindAllStringSubmatch(string(text), -1)
	for i, content := range heading.Split(string(text), -1)[1:] {
		write(t, filepath.Join(root, names[i][1]), content)
	}

	return root
}

func write(t testing.TB, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// hierarchies are those below a directory.
type hierarchies struct {
	root string
	v2   bool
}

func (h hierarchies) Dir(controller, group string) string {
	if h.v2 {
		controller = ""
	}
	return filepath.Join(h.root, "sys/fs/cgroup", controller, group)
}

func (h hierarchies) Reader(group string, keep bool) *counters.Reader {
	return counters.NewReader(counters.Group{
		Name: group,
		V2:   h.v2,
		Dir:  func(controller string) string { return h.Dir(controller, group) },
	}, keep)
}

// tree has one pod.
type tree struct {
	group string
	asked atomic.Int32
}

func (*tree) Tiers() []string { return []string{"/kubepods", "/kubepods/burstable"} }

func (t *tree) Groups() (map[types.UID]string, error) {
	t.asked.Add(1)
	return map[types.UID]string{"u": t.group}, nil
}

var born = time.Unix(1_800_000_000, 0)

// fakeRuntime has a pod whose sandbox was replaced, with one container, and a sandbox that is nobody's.
type fakeRuntime struct {
	asked atomic.Int32
	// fails has lists fail, and block keeps them until it is closed.
	fails atomic.Bool
	block chan struct{}
}

func (f *fakeRuntime) Sandboxes(context.Context, runtime.Selection) ([]runtime.Sandbox, error) {
	f.asked.Add(1)
	if f.block != nil {
		<-f.block
	}
	if f.fails.Load() {
		return nil, errors.New("runtime is away")
	}

	web := runtime.Pod{UID: "u", Namespace: "shop", Name: "web"}
	return []runtime.Sandbox{
		{ID: "old", Pod: web, Attempt: 0, Created: born},
		{ID: "box", Pod: web, Attempt: 1, Created: born},
		{ID: "alien"},
	}, nil
}

func (f *fakeRuntime) Containers(context.Context, runtime.Selection) ([]runtime.Container, error) {
	web := runtime.Pod{UID: "u", Namespace: "shop", Name: "web"}
	return []runtime.Container{{
		ID:        "app1",
		SandboxID: "box",
		Pod:       web,
		Name:      "app",
		Image:     "img",
		State:     plan.Running,
		Created:   born,
	}}, nil
}

// onV2 is a meter of a recorded machine with the unified hierarchy.
func onV2(t testing.TB, rt Runtime) *Meter {
	t.Helper()
	root := recorded(t, "v2.txt")
	return New(Config{
		Groups:  hierarchies{root: root, v2: true},
		V2:      true,
		Tree:    &tree{group: "/kubepods/burstable/podu"},
		Runtime: rt,
		Daemons: func() map[string]string { return map[string]string{"kubelet": "/kubepods"} },
		Root:    root,
	})
}
