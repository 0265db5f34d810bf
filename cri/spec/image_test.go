package spec

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// What one container adds to the image's configuration must not reach another container of that image, as
// with a slice that both append to (CVE-2021-21334).
func TestContainersOfOneImageShareNothing(t *testing.T) {
	image := plain().Image
	image.Env = append(make([]string, 0, 8), image.Env...)
	image.Entrypoint = append(make([]string, 0, 8), image.Entrypoint...)
	image.Cmd = append(make([]string, 0, 8), image.Cmd...)
	generate := func(secret string) string {
		cfg := plain()
		cfg.Image = image
		cfg.Container.Envs = []*runtimeapi.KeyValue{{Key: "SECRET", Value: []byte(secret)}}
		cfg.Container.Args = []string{secret}
		s, err := Generate(cfg)
		if err != nil {
			t.Fatal(err)
		}

		// When the other one has been made.
		t.Cleanup(func() {
			if !slices.Contains(s.Process.Env, "SECRET="+secret) || !slices.Contains(s.Process.Args, secret) {
				t.Errorf("container %s has %v, %v", secret, s.Process.Args, s.Process.Env)
			}
		})

		return encode(t, s)
	}

	one, other := generate("one"), generate("other")
	if strings.Contains(other, `"one"`) || strings.Contains(one, `"other"`) {
		t.Errorf("one container sees what is the other's:\n%s\n%s", one, other)
	}
	if whole := encode(t, image.Env[:cap(image.Env)]); strings.Contains(whole, "SECRET") {
		t.Errorf("the image's configuration has been written to: %s", whole)
	}
}

// Labels are an image author's. A program that reads orders from annotations must not find them there
// (CVE-2026-53488).
func TestLabelsOfAnImageDoNotReachTheOCIRuntime(t *testing.T) {
	cfg := plain()
	cfg.Image.Labels = map[string]string{
		"run.oci.handler":            "planted",
		"io.kubernetes.cri.planted":  "planted",
		"org.systemd.property.Slice": "planted",
	}

	s, err := Generate(cfg)
	if err != nil {
		t.Fatal(err)
	}

	text, err := json.Marshal(s)
	if err != nil || strings.Contains(string(text), "planted") {
		t.Errorf("%s, %v", text, err)
	}
}
