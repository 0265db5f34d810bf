package spec

import "testing"

// CVE-2024-3154 was a pod that set properties of its unit.
func TestPodsCannotChangeWhatTheCgroupDriverTellsTheRuntime(t *testing.T) {
	const name = "org.systemd.property.CollectMode"
	cfg := plain()
	cfg.CgroupAnnotations = map[string]string{name: "'inactive-or-failed'"}
	cfg.AllowedAnnotations = []string{"org.systemd.property.*"}
	cfg.Sandbox.Annotations = map[string]string{name: "'inactive'"}
	cfg.Container.Annotations = map[string]string{name: "'inactive'"}

	s, err := Generate(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if got := s.Annotations[name]; got != "'inactive-or-failed'" {
		t.Errorf("annotation %s", got)
	}
}
