package external

import (
	"os"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

// definition is the part of one that the rest of the package relies on.
type definition struct {
	DriverInfo struct {
		Name         string
		Capabilities map[string]bool
	}
	StorageClass struct{ FromExistingClassName string }
}

func TestDriversAreDefined(t *testing.T) {
	paths, err := Write(t.TempDir() + "/drivers")
	if err != nil {
		t.Fatal(err)
	}

	var names []string
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		var d definition
		if err := yaml.UnmarshalStrict(withoutRest(text), &d); err != nil {
			t.Errorf("%s: %v", path, err)
		}
		if d.StorageClass.FromExistingClassName == "" || !d.DriverInfo.Capabilities["persistence"] {
			t.Errorf("%s: %+v", path, d)
		}
		names = append(names, d.DriverInfo.Name)
	}

	slices.Sort(names)
	var want []string
	for name := range drivers {
		want = append(want, name)
	}
	slices.Sort(want)
	if !slices.Equal(names, want) {
		t.Errorf("drivers %q are defined, want %q", names, want)
	}
}

// withoutRest keeps of a definition what is looked at.
func withoutRest(text []byte) []byte {
	var kept []string
	for line := range strings.Lines(string(text)) {
		rest := strings.HasPrefix(strings.TrimSpace(line), "Supported") ||
			strings.HasPrefix(strings.TrimSpace(line), "TopologyKeys") ||
			!strings.HasPrefix(line, " ") && !strings.HasPrefix(line, "DriverInfo:") &&
				!strings.HasPrefix(line, "StorageClass:")
		if !rest {
			kept = append(kept, line)
		}
	}
	return []byte(strings.Join(kept, ""))
}

func TestSpecsOfTheDriversAreWanted(t *testing.T) {
	for name, want := range map[string]bool{
		"] [Testpattern: Dynamic PV (default fs)] volumes should store data":       true,
		"-images] [Testpattern: Dynamic PV] volume-modify should modify [Beta]":    true,
		"-one-node] [Testpattern:  (delete policy)] volumegroupsnapshottable x":    true,
		"] [Testpattern:  (delete policy)] volumegroupsnapshottable x":             false,
		"] [Testpattern:  (delete policy)] volumegroupsnapshotclass x":             true,
		"] [Testpattern: Dynamic PV] volume-modify should modify [Beta]":           false,
		"] [Testpattern: Generic (immediate-binding)] ephemeral x":                 false,
		"-one-node] [Testpattern: Generic (immediate-binding)] ephemeral x":        true,
		"-small] [Testpattern: Dynamic PV] volumeLimits should verify":             true,
		"-small] [Testpattern: Dynamic PV] volumes should store data":              false,
		"-one-node] [Testpattern: Dynamic PV] volumes should store data":           false,
		"] [Testpattern: Dynamic PV] subPath should unmount [Disruptive] [Slow]":   false,
		"] [Testpattern: Dynamic PV (ntfs)] [Feature:Windows] volumes should work": false,
		"-other] [Testpattern: Dynamic PV] volumes should store data":              false,
	} {
		if Has("External Storage [Driver: csi.trivet.dev"+name) != want {
			t.Errorf("%s: wanted is %t", name, !want)
		}
	}

	if name := "[sig-storage] CSI Volumes [Driver: csi-hostpath] volumes should store data"; Has(name) {
		t.Errorf("%s is wanted", name)
	}
}
