package userns

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/trivet-node/trivet/node/criconfig"
)

func open(t *testing.T, root string, slots uint32) *Ranges {
	t.Helper()
	r, err := Open(Config{
		RootDir: root,
		Range:   Range{First: unit, Length: slots * unit},
		PerPod:  unit,
		Log:     slog.New(slog.DiscardHandler),
		Handlers: func() []v1.NodeRuntimeHandler {
			can := &v1.NodeRuntimeHandlerFeatures{UserNamespaces: new(true)}
			return []v1.NodeRuntimeHandler{{Features: can}, {Name: "old"}}
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func podOf(uid types.UID) *v1.Pod {
	p := &v1.Pod{Spec: v1.PodSpec{HostUsers: new(false)}}
	p.UID = uid
	return p
}

func (r *Ranges) must(t *testing.T, uid types.UID) criconfig.Users {
	t.Helper()
	users, err := r.Of(podOf(uid), "")
	if err != nil {
		t.Fatal(err)
	}
	return users
}

func TestEachPodHasARangeOfItsOwnUntilItIsReleased(t *testing.T) {
	root := t.TempDir()
	r := open(t, root, 3)
	a, b := r.must(t, "a"), r.must(t, "b")
	if overlap(a, b) || a.First%unit != 0 || a.First < unit || a.Length != unit || r.must(t, "a") != a {
		t.Errorf("ranges %v, %v", a, b)
	}

	// As kubelet writes it, and finds it.
	const one = `[{"hostId":%d,"containerId":0,"length":65536}]`
	want := fmt.Sprintf(`{"uidMappings":`+one+`,"gidMappings":`+one+`}`, a.First, a.First)
	if text, err := os.ReadFile(root + "/pods/a/userns"); err != nil || string(text) != want {
		t.Errorf("record %s, %v", text, err)
	}

	// The next agent, or one that was kubelet until now.
	r = open(t, root, 3)
	if c := r.must(t, "c"); r.must(t, "b") != b || overlap(c, a) || overlap(c, b) {
		t.Error("after a restart the pods have other ranges")
	}

	_, err := r.Of(podOf("d"), "")
	if err == nil || !strings.Contains(err.Error(), "could not find an empty slot") {
		t.Errorf("a fourth pod: %v", err)
	}

	for range 2 {
		if err := r.Release("a"); err != nil {
			t.Fatal(err)
		}
	}

	if r.must(t, "d") != a {
		t.Error("a range that is free is not given")
	}
	if err := r.ReleaseUnless(func(uid types.UID) bool { return uid == "d" }); err != nil {
		t.Fatal(err)
	}
	if files, _ := filepath.Glob(root + "/pods/*/userns"); len(files) != 1 {
		t.Errorf("records %v", files)
	}
}

// Two pods of two nodes may share a volume.
func TestNodesSeldomGiveTheSameRange(t *testing.T) {
	seen := map[criconfig.Users]bool{}
	for range 16 {
		seen[open(t, t.TempDir(), 65534).must(t, "a")] = true
	}
	if len(seen) < 8 {
		t.Errorf("16 nodes have given %d ranges", len(seen))
	}
}

func TestRefusalsAreKubelets(t *testing.T) {
	const cannot = "can't set `spec.hostUsers: false`, "
	r := open(t, t.TempDir(), 3)
	for handler, want := range map[string]string{
		"old":   cannot + "RuntimeClass handler \"old\" does not support user namespaces",
		"other": "does not support user namespaces: the handler \"other\" is not known",
	} {
		if _, err := r.Of(podOf("a"), handler); err == nil || !strings.HasSuffix(err.Error(), want) {
			t.Errorf("%s: %v", handler, err)
		}
	}

	r.cfg.Handlers = func() []v1.NodeRuntimeHandler { return nil }
	_, err := r.Of(podOf("a"), "")
	if err == nil || err.Error() != cannot+"runtime does not support user namespaces" {
		t.Errorf("a runtime that says nothing: %v", err)
	}

	// Who wants none asks for nothing.
	if users, err := r.Of(&v1.Pod{}, "old"); err != nil || users != (criconfig.Users{}) {
		t.Errorf("a pod of the host's users: %v, %v", users, err)
	}
}

func TestRecordsThatNoAgentHasWrittenGiveNothing(t *testing.T) {
	record := func(host, container, length uint32) string {
		m := fmt.Sprintf(`[{"hostId":%d,"containerId":%d,"length":%d}]`, host, container, length)
		return fmt.Sprintf(`{"uidMappings":%s,"gidMappings":%s}`, m, m)
	}
	for text, want := range map[string]string{
		"{":                           "invalid user namespace mappings file",
		"{}":                          "no more than one mapping",
		record(0, 0, unit):            "wrong user namespace offset",
		record(unit, 1, unit):         "UID 0 must be mapped",
		record(unit+1, 0, unit):       "wrong user namespace offset",
		record(unit, 0, 0):            "wrong user namespace length",
		record(1<<32-unit, 0, 2*unit): "out of range",
		record(2*unit, 0, unit):       "already taken",
		strings.Repeat(" ", 1<<20):    "invalid user namespace mappings file",
	} {
		root := t.TempDir()
		for uid, content := range map[string]string{"a": record(2*unit, 0, unit), "b": text} {
			if err := os.MkdirAll(root+"/pods/"+uid, 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(root+"/pods/"+uid+"/userns", []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
		}

		r := open(t, root, 4)
		if _, err := r.Of(podOf("b"), ""); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.60s: %v, want %s", text, err, want)
		}
		if got := r.must(t, "c"); overlap(got, r.must(t, "a")) {
			t.Errorf("%.60s: the next pod has %v", text, got)
		}
	}
}

// The kernel lets no group beyond send pings without a capability.
func TestRangesBelowHalfOfTheIDsAreGivenFirst(t *testing.T) {
	r := open(t, t.TempDir(), 1)
	r.cfg.Range = Range{First: signed - 8*unit, Length: 16 * unit}
	for i := range 16 {
		users := r.must(t, types.UID(fmt.Sprint("pod", i)))
		if below := users.First+users.Length <= signed; below != (i < 8) {
			t.Errorf("pod %d has the range from %d on", i, users.First)
		}
	}

	r = open(t, t.TempDir(), 1)
	r.cfg.Range = Range{First: signed, Length: unit}
	if users := r.must(t, "a"); users.First != signed {
		t.Errorf("range %v", users)
	}
}

// Ranges of another length stay those of their pods when the configuration changes.
func TestRangesOfAnotherLengthAreKept(t *testing.T) {
	root := t.TempDir()
	kept := open(t, root, 4).must(t, "small")
	r, err := Open(Config{
		RootDir:  root,
		Range:    Range{First: 2 * unit, Length: 4 * unit},
		PerPod:   2 * unit,
		Log:      slog.New(slog.DiscardHandler),
		Handlers: open(t, t.TempDir(), 1).cfg.Handlers,
	})
	if err != nil {
		t.Fatal(err)
	}

	if small, large := r.must(t, "small"), r.must(t, "large"); small != kept || overlap(small, large) {
		t.Errorf("%v, %v, want %v", small, large, kept)
	}
}
