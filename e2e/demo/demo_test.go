package demo

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// fakeKubectl is a shell script in kubectl's place. $calls is a file with its command lines.
func fakeKubectl(t *testing.T, script string) (*stage, func() string) {
	t.Helper()
	dir := t.TempDir()
	calls := filepath.Join(dir, "calls")
	program := filepath.Join(dir, "kubectl")
	text := "#!/bin/sh\nshift 2\necho \"$*\" >>" + calls + "\n" + script + "\n"
	if err := os.WriteFile(program, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}

	var out strings.Builder
	s := &stage{kubectl: kubectl{program: program, out: &out}, manifests: "/manifests"}
	return s, func() string {
		data, err := os.ReadFile(calls)
		if err != nil {
			t.Fatal(err)
		}

		return string(data)
	}
}

func TestReplicasAreSpreadAsFarAsTheClusterGoes(t *testing.T) {
	for _, c := range []struct {
		used string
		size int
		good bool
	}{
		{"a b c", 3, true},
		{"a b c", 5, true},
		{"a b a", 3, false},
		{"a b a", 2, true},
		{"a a a", 2, false},
		{"a a a", 1, true},
		{"", 1, false},
	} {
		if err := spread(strings.Fields(c.used), c.size); (err == nil) != c.good {
			t.Errorf("%q in a cluster of %d: %v", c.used, c.size, err)
		}
	}
}

func TestFailedCommandIsNamedWithWhatItSaid(t *testing.T) {
	s, _ := fakeKubectl(t, "echo 'no such pod' >&2; exit 1")
	_, err := s.run(t.Context(), "get", "pod", "kv-0")
	if err == nil || !strings.Contains(err.Error(), "kubectl get pod kv-0: exit status 1: no such pod") {
		t.Errorf("error %v", err)
	}
}

func TestShownCommandsAreIndentedBelowThemselves(t *testing.T) {
	s, _ := fakeKubectl(t, "echo NAME; echo kv-0")
	if _, err := s.show(t.Context(), "get", "pods"); err != nil {
		t.Fatal(err)
	}

	const want = "         $ kubectl get pods\n           NAME\n           kv-0\n"
	if got := s.out.(*strings.Builder).String(); got != want {
		t.Errorf("shown:\n%s", got)
	}
}

func TestEveryVolumeOfTheClaimsIsWaitedFor(t *testing.T) {
	s, calls := fakeKubectl(t, `[ "$1" = get ] && printf 'pv-1\npv-2\n'; exit 0`)
	if err := deleteClaims(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	last := "wait --for=delete --timeout=60s persistentvolume/pv-1 persistentvolume/pv-2\n"
	if got := calls(); !strings.HasSuffix(got, last) {
		t.Errorf("calls:\n%s", got)
	}
}

func TestUpdateThatShowsTheOldVersionFails(t *testing.T) {
	s, _ := fakeKubectl(t, `[ "$1" = exec ] && echo 1; exit 0`)
	if err := update(t.Context(), s); err == nil || !strings.Contains(err.Error(), `version "1"`) {
		t.Errorf("error %v, want one with the version", err)
	}
}

func TestApplicationWithoutClaimsKeepsItsDataInAnEmptyDir(t *testing.T) {
	data, err := os.ReadFile("../../deploy/demo/app.yaml")
	if err != nil {
		t.Fatal(err)
	}

	app := withoutClaims(string(data))
	if strings.Contains(app, "volumeClaimTemplates") || strings.Contains(app, "storageClassName") {
		t.Error("the claims are still there")
	}

	last := "      - {name: secret, secret: {secretName: kv, defaultMode: 0400}}\n" +
		"      - {name: data, emptyDir: {}}\n"
	if !strings.HasSuffix(app, last) {
		t.Errorf("the application ends with:\n%s", app[max(0, len(app)-300):])
	}
}

func TestClaimsOfTheApplicationCanHaveAnotherClass(t *testing.T) {
	data, err := os.ReadFile("../../deploy/demo/app.yaml")
	if err != nil {
		t.Fatal(err)
	}
	app := withClass(string(data), "local-path")
	if strings.Contains(app, ": trivet\n") || !strings.Contains(app, "storageClassName: local-path\n") {
		t.Errorf("the application:\n%s", app)
	}
}

func TestLookThatNeverSucceedsEndsWithItsLastError(t *testing.T) {
	last := errors.New("still there")
	err := until(t.Context(), time.Millisecond, func(context.Context) error { return last })
	if !errors.Is(err, last) {
		t.Errorf("error %v", err)
	}
}

func TestStepIsNamedWhenItFails(t *testing.T) {
	s, _ := fakeKubectl(t, `[ "$1" = apply ] && exit 1; exit 0`)
	d := Demo{
		Kubectl:   s.program,
		Manifests: "/manifests",
		Out:       s.out,
		Nodes:     1,
	}
	err := d.Run(t.Context())
	if err == nil || !strings.HasPrefix(err.Error(), "demo step 1, apply the application") {
		t.Errorf("error %v", err)
	}
}

func TestReplicasWithVolumesElsewhereAreNamed(t *testing.T) {
	const cluster = `case "$*" in
		*pods*) echo kv-0=n1; echo kv-1=n2 ;;
		*persistentvolumeclaims*) echo data-kv-0=pv-0; echo data-kv-1=pv-1 ;;
		*) echo 'pv-0={"values":["n1"]}'; echo "pv-1={\"values\":[\"$NODE\"]}" ;;
	esac`
	for node, want := range map[string]string{"n2": "", "n3": "volume pv-1 of kv-1"} {
		t.Setenv("NODE", node)
		s, _ := fakeKubectl(t, cluster)
		s.nodes, s.claims = 2, true
		err := checkSpread(t.Context(), s)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("volume on %s: %v", node, err)
		}
	}
}

func TestBriefDemoHasAllReplicasAtOnce(t *testing.T) {
	s, calls := fakeKubectl(t, "exit 0")
	s.manifests, s.work, s.brief, s.claims = "../../deploy/demo", t.TempDir(), true, true
	if err := apply(t.Context(), s); err != nil {
		t.Fatal(err)
	}

	app, err := os.ReadFile(filepath.Join(s.work, "app.yaml"))
	if err != nil || !strings.Contains(string(app), "  replicas: 3\n") {
		t.Errorf("%v, the application:\n%s", err, app)
	}
	if got := calls(); !strings.Contains(got, "apply -f "+s.work) {
		t.Errorf("calls:\n%s", got)
	}
}
