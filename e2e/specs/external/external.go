// Package external tells the suite about trivet-csi, for its specs of drivers that it does not know (External
// Storage): a definition for each kind of class that has specs of its own, by the format of k8s.io/kubernetes
// (test/e2e/storage/external). The classes are those of a cluster with trivet-cluster up --snapshots.
package external

import (
	"embed"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

//go:embed *.yaml
var definitions embed.FS

// Write writes the definitions to files in a directory, which is made, and returns their paths.
func Write(dir string) ([]string, error) {
	names, err := fs.Glob(definitions, "*.yaml")
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}

	var paths []string
	for _, name := range names {
		text, err := definitions.ReadFile(name)
		if err != nil {
			return nil, err
		}
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, text, 0o644); err != nil {
			return nil, fmt.Errorf("definition of a driver: %w", err)
		}
		paths = append(paths, path)
	}
	return paths, nil
}

// Words in the names of suites that one of the definitions is for.
const (
	// spreading makes a group snapshot of the volumes of pods on any nodes.
	spreading = " volumegroupsnapshottable "

	// modifying limits the input and output of volumes, which only those with a device of their own have.
	modifying = " volume-modify "

	// immediate has volumes that are made before their pod has a node: the suite does not ask for it where
	// there are several nodes for them.
	immediate = " (immediate-binding)] "

	// filling has as many volumes on a node as there may be.
	filling = " volumeLimits "
)

// drivers are the names in the definitions, and which of their specs are wanted, by their names.
var drivers = map[string]func(name string) bool{
	"csi.trivet.dev":          hasNone(spreading, immediate, modifying),
	"csi.trivet.dev-images":   hasNone(immediate),
	"csi.trivet.dev-one-node": has(spreading, immediate),
	"csi.trivet.dev-small":    has(filling),
}

// has chooses names with one of the words, hasNone those without them.
func has(words ...string) func(string) bool {
	return func(name string) bool {
		return slices.ContainsFunc(words, func(word string) bool { return strings.Contains(name, word) })
	}
}

func hasNone(words ...string) func(string) bool {
	return func(name string) bool { return !has(words...)(name) }
}

// unwanted are words of specs that take long, disturb others, or are of what the machines do not have:
// another system, SELinux, and an image of a populator of volumes.
var unwanted = []string{
	"[Slow]", "[Disruptive]", "[Feature:Windows]", "[Feature:SELinux", "any volume data source",
}

// Has reports whether a spec is one of a driver that is defined here, and wanted.
func Has(name string) bool {
	after, found := strings.CutPrefix(name, "External Storage [Driver: ")
	driver, rest, closed := strings.Cut(after, "]")
	isWanted, known := drivers[driver]
	in := func(word string) bool { return strings.Contains(rest, word) }
	return found && closed && known && isWanted(rest) && !slices.ContainsFunc(unwanted, in)
}
