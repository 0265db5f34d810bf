package trivet

import (
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

// deployHeadings are the sections of the page of each part, in order.
var deployHeadings = []string{"What it does", "Install", "Check", "Tune", "Upgrade", "Away again"}

func TestPagesOfPartsHaveOneForm(t *testing.T) {
	for _, part := range []string{"cni", "cri", "csi", "node"} {
		file := "deploy/" + part + "/README.md"
		var headings []string
		for _, match := range adrHeading.FindAllStringSubmatch(readText(t, file), -1) {
			headings = append(headings, match[1])
		}
		if !slices.Equal(headings, deployHeadings) {
			t.Errorf("%s: sections %q, want %q", file, headings, deployHeadings)
		}
	}
}

var (
	makeVersion  = regexp.MustCompile(`(?m)^VERSION \?= v(.*)$`)
	imageVersion = regexp.MustCompile(`\btrivet-(?:cri|csi|netd|node)[:_]v?([0-9]+\.[0-9]+\.[0-9]+)`)
)

// TestWhatIsDeployedIsOfThisVersion compares images and packages that files of deploy name with the Makefile.
func TestWhatIsDeployedIsOfThisVersion(t *testing.T) {
	version := makeVersion.FindStringSubmatch(readText(t, "Makefile"))
	if version == nil {
		t.Fatal("the Makefile has no VERSION")
	}

	var files []string
	for _, pattern := range []string{
		"deploy/*/*.yaml", "deploy/*/*/*.yaml", "deploy/*/README.md", "docs/install.md",
	} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, found...)
	}

	for _, file := range files {
		for _, match := range imageVersion.FindAllStringSubmatch(readText(t, file), -1) {
			if match[1] != version[1] {
				t.Errorf("%s names %s, the Makefile version %s", file, match[0], version[1])
			}
		}
	}
}

func TestUnitsSurviveWhatTheyAreFor(t *testing.T) {
	units, err := filepath.Glob("deploy/*/*.service")
	if err != nil || len(units) != 4 {
		t.Fatalf("units %q: %v", units, err)
	}

	for _, unit := range units {
		text := readText(t, unit)
		wanted := []string{
			"Type=notify\n",
			"WatchdogSec=",
			"Restart=",
			"RestartSec=",
			"StartLimitIntervalSec=0\n",
		}

		// What these mount has to reach the machine, and what they have started lives on.
		if unit != "deploy/cni/trivet-netd.service" {
			wanted = append(wanted, "KillMode=process\n")
			for _, forbidden := range []string{"Private", "Protect", "ReadOnlyPaths", "MountFlags"} {
				if strings.Contains(text, "\n"+forbidden) {
					t.Errorf("%s has %s..., which makes a namespace of mounts", unit, forbidden)
				}
			}
		}

		// A container without a parent is in the service's own control group, where systemd must not tidy up.
		if unit == "deploy/cri/trivet-cri.service" {
			wanted = append(wanted, "Delegate=yes\n")
		}

		for _, want := range wanted {
			if !strings.Contains(text, "\n"+want) {
				t.Errorf("%s does not have %s", unit, strings.TrimSpace(want))
			}
		}
	}
}

// TestDriverHasNoRightsToSecretsAndNodes keeps what root on one node has by the driver's account from being
// what all nodes have (CVE-2023-30512, CVE-2023-30840).
func TestDriverHasNoRightsToSecretsAndNodes(t *testing.T) {
	type rule struct{ Resources, Verbs []string }
	for document := range strings.SplitSeq(readText(t, "deploy/csi/rbac.yaml"), "\n---\n") {
		var role struct {
			Kind  string
			Rules []rule
		}
		if err := yaml.Unmarshal([]byte(document), &role); err != nil {
			t.Fatal(err)
		}
		for _, r := range role.Rules {
			if slices.Contains(r.Resources, "secrets") || slices.Contains(r.Resources, "*") {
				t.Errorf("%s: %q of %q", role.Kind, r.Verbs, r.Resources)
			}
			if slices.Contains(r.Resources, "nodes") && !slices.Equal(r.Verbs, []string{"get"}) {
				t.Errorf("%s: %q of nodes", role.Kind, r.Verbs)
			}
		}
	}
}
