package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestAnnotationsAreAllowedPerHandler(t *testing.T) {
	file := filepath.Join(t.TempDir(), "cri.toml")
	text := "allowed_annotations = ['run.oci.handler']\n" +
		"[runtimes.kata]\nprogram = 'kata'\nallowed_annotations = ['io.katacontainers.*']\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}

	c := Default()
	if len(c.AllowedAnnotations) > 0 {
		t.Errorf("%v are allowed by default", c.AllowedAnnotations)
	}
	if err := Load(file, true, &c); err != nil {
		t.Fatal(err)
	}
	if err := c.Validate(); err != nil {
		t.Fatal(err)
	}
	if len(c.AllowedAnnotations) != 1 || len(c.Runtimes["kata"].AllowedAnnotations) != 1 {
		t.Errorf("got %v and %v", c.AllowedAnnotations, c.Runtimes["kata"].AllowedAnnotations)
	}
}

func TestBrokenPatternsOfAnnotationsAreRefused(t *testing.T) {
	c := Default()
	c.Runtimes = map[string]Runtime{"kata": {Program: "kata", AllowedAnnotations: []string{"io.kata[*"}}}
	err := c.Validate()
	if err == nil || !strings.Contains(err.Error(), "runtimes.kata.allowed_annotations") {
		t.Errorf("error %v does not name the key", err)
	}
}
