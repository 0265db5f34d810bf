package upgrade

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// cluster answers by the beginnings of commands, and remembers what it was asked.
type cluster struct {
	answers map[string]string
	asked   []string
}

func (c *cluster) Kubectl(_ context.Context, _ string, args ...string) (string, error) {
	return c.answer("kubectl " + strings.Join(args, " "))
}

func (c *cluster) OnNode(_ context.Context, node, script string) (string, error) {
	return c.answer(node + ": " + script)
}

func (c *cluster) Copy(_ context.Context, node, file, path string) error {
	_, err := c.answer(node + ": " + filepath.Base(file) + " -> " + path)
	return err
}

func (c *cluster) answer(command string) (string, error) {
	c.asked = append(c.asked, command)
	for beginning, answer := range c.answers {
		if strings.HasPrefix(command, beginning) {
			return answer, nil
		}
	}
	return "", nil
}

// programs is a directory with a kubeadm that only says its version.
func programs(t *testing.T, version string) string {
	t.Helper()
	dir := t.TempDir()
	script := "#!/bin/sh\necho " + version + "\n"
	if err := os.WriteFile(filepath.Join(dir, "kubeadm"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestClusterOfTheVersionIsRefused(t *testing.T) {
	c := &cluster{answers: map[string]string{
		"kubectl version": `{"serverVersion": {"gitVersion": "v1.37.2"}}`,
	}}
	err := Upgrade{Cluster: c, Programs: programs(t, "v1.37.2"), Say: t.Logf}.Run(t.Context())
	if err == nil || !strings.Contains(err.Error(), "v1.37.2 already") {
		t.Errorf("error %v", err)
	}
	if len(c.asked) != 1 {
		t.Errorf("it was asked %q", c.asked)
	}
}

func TestControlPlaneHasAllComponentsOfTheVersion(t *testing.T) {
	const (
		etcd = "etcd registry.k8s.io/etcd:3.7.0-0 True\n"
		api  = "kube-apiserver registry.k8s.io/kube-apiserver:v1.37.2 True\n"
		kcm  = "kube-controller-manager registry.k8s.io/kube-controller-manager:v1.37.2 True\n"
		old  = "kube-scheduler registry.k8s.io/kube-scheduler:v1.36.3 True\n"
		down = "kube-scheduler registry.k8s.io/kube-scheduler:v1.37.2 False\n"
		none = "kube-scheduler registry.k8s.io/kube-scheduler:v1.37.2\n"
		up   = "kube-scheduler registry.k8s.io/kube-scheduler:v1.37.2 True\n"
	)
	for lines, want := range map[string]string{
		etcd + api + kcm + up:   "",
		etcd + api + kcm + old:  "kube-scheduler is not of v1.37.2",
		etcd + api + kcm + down: "not Ready: kube-scheduler",
		etcd + api + kcm + none: "not Ready: kube-scheduler",
		api + kcm + up:          "no static pod etcd",
	} {
		err := planeIn(lines, "v1.37.2")
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q, of\n%s", err, want, lines)
		}
	}
}

func TestWitnessThatWasRestartedIsAnError(t *testing.T) {
	c := &cluster{answers: map[string]string{
		"kubectl -n upgrade get pods": "one cri://a, restarted 0 times\ntwo cri://b, restarted 1 times\n",
	}}
	w := witnesses{cluster: c, nodes: []string{"one", "two"}}
	if err := w.start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := w.unchanged(t.Context()); err != nil {
		t.Error(err)
	}

	c.answers["kubectl -n upgrade get pods"] = "one cri://c, restarted 0 times\n"
	err := w.unchanged(t.Context())
	if err == nil || !strings.Contains(err.Error(), "one") {
		t.Errorf("error %v", err)
	}

	// What was on a drained node is gone.
	w.forget("one")
	w.forget("two")
	if err := w.unchanged(t.Context()); err != nil {
		t.Error(err)
	}
}
