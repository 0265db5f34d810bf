package sbom

import (
	"bytes"
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/trivet-node/trivet/internal/debian"
)

// subject has the program of this test for two architectures.
func subject(t *testing.T) Subject {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}

	return Subject{
		Name:    "trivet-x",
		Version: "v1.2.3",
		Time:    time.Unix(1_700_000_000, 0),
		Programs: []Program{
			{Name: "trivet-x", Arch: "amd64", File: self},
			{Name: "trivet-x", Arch: "arm64", File: self},
		},
		Packages: []debian.Package{{
			Name:          "libuuid1",
			Version:       "1:2.38.1-5+deb12u3",
			Architecture:  "amd64",
			Source:        "util-linux",
			SourceVersion: "2.38.1-5+deb12u3",
			SHA256:        strings.Repeat("ab", 32),
		}},
	}
}

func written(t *testing.T, s Subject) (text []byte, list bom) {
	t.Helper()
	var out bytes.Buffer
	if err := Write(&out, s); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(out.Bytes(), &list); err != nil {
		t.Fatal(err)
	}
	return out.Bytes(), list
}

func TestAListHasProgramsModulesAndPackages(t *testing.T) {
	_, list := written(t, subject(t))
	if list.Format != "CycloneDX" || list.Metadata.Timestamp != "2023-11-14T22:13:20Z" {
		t.Errorf("%+v", list.Metadata)
	}

	refs := map[string]component{}
	for _, c := range list.Components {
		refs[c.Ref] = c
	}
	for _, want := range []string{
		"trivet-x/amd64",
		"trivet-x/arm64",
		"pkg:deb/debian/libuuid1@1%3A2.38.1-5%2Bdeb12u3?arch=amd64&upstream=util-linux%402.38.1-5%2Bdeb12u3",
	} {
		if refs[want].Ref == "" {
			t.Errorf("no component %s", want)
		}
	}

	std := slices.IndexFunc(list.Components, func(c component) bool { return c.Name == "std" })
	if std < 0 || strings.HasPrefix(list.Components[std].Version, "go") {
		t.Error("Go's standard library is missing, or its version has a prefix")
	}
	if sum := refs["trivet-x/amd64"].Hashes; len(sum) != 1 || len(sum[0].Content) != 64 {
		t.Errorf("sums of the program: %+v", sum)
	}
}

func TestWhatConsistsOfWhatIsThere(t *testing.T) {
	_, list := written(t, subject(t))
	refs := map[string]bool{"trivet-x": true}
	for _, c := range list.Components {
		if refs[c.Ref] {
			t.Errorf("%s is there twice", c.Ref)
		}
		refs[c.Ref] = true
	}

	for _, d := range list.Dependencies {
		for _, ref := range append(d.DependsOn, d.Ref) {
			if !refs[ref] {
				t.Errorf("%s is not a component", ref)
			}
		}
	}
	if first := list.Dependencies[slices.IndexFunc(list.Dependencies, func(d dependency) bool {
		return d.Ref == "trivet-x"
	})]; len(first.DependsOn) != 3 {
		t.Errorf("the subject consists of %q", first.DependsOn)
	}
}

func TestEqualSubjectsMakeAnEqualList(t *testing.T) {
	one, _ := written(t, subject(t))
	two, _ := written(t, subject(t))
	if !bytes.Equal(one, two) {
		t.Error("two lists of one subject differ")
	}
}

func TestAFileThatGoHasNotBuiltIsRefused(t *testing.T) {
	s := subject(t)
	s.Programs[0].File = "sbom_test.go"
	err := Write(&bytes.Buffer{}, s)
	if err == nil || !strings.Contains(err.Error(), "program trivet-x for amd64") {
		t.Errorf("error %v", err)
	}
}
