// Package license collects the licences and notices of the Go modules that are linked into programs: most of
// them have to go where the programs go.
package license

import (
	"bytes"
	"context"
	"debug/buildinfo"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// document is the name of a file with a licence or a notice.
var document = regexp.MustCompile(`(?i)^(licen[sc]e|copying|notice|patents)([.-][a-z0-9.-]+)?$`)

// Collector reads from the module cache of the go command.
type Collector struct {
	// Dir is in the module that the programs are built in.
	Dir string
}

// Collect returns the documents of all modules of programs, and of Go itself. A text that several modules
// have is there once, below their names.
func (c Collector) Collect(ctx context.Context, programs []string) ([]byte, error) {
	modules, err := linked(programs)
	if err != nil {
		return nil, err
	}

	dirs, err := c.directories(ctx, modules)
	if err != nil {
		return nil, err
	}

	// By text: who has it.
	owners := map[string][]string{}
	for _, module := range slices.Sorted(maps.Keys(dirs)) {
		texts, err := documents(dirs[module])
		if err != nil {
			return nil, err
		}
		if len(texts) == 0 {
			return nil, fmt.Errorf("module %s has no licence in %s", module, dirs[module])
		}

		for _, text := range texts {
			owners[text] = append(owners[text], module)
		}
	}

	return join(owners), nil
}

// linked are the modules of programs, each as PATH@VERSION.
func linked(programs []string) ([]string, error) {
	modules := map[string]bool{}
	for _, program := range programs {
		info, err := buildinfo.ReadFile(program)
		if err != nil {
			return nil, err
		}

		for _, m := range info.Deps {
			if m.Replace != nil {
				m = m.Replace
			}
			modules[m.Path+"@"+m.Version] = true
		}
	}
	return slices.Sorted(maps.Keys(modules)), nil
}

// directories are where the modules, and Go, have their files.
func (c Collector) directories(ctx context.Context, modules []string) (map[string]string, error) {
	root, err := c.run(ctx, "env", "GOROOT")
	if err != nil {
		return nil, err
	}

	dirs := map[string]string{"Go": strings.TrimSpace(root)}
	list := []string{"list", "-m", "-f", "{{.Path}}@{{.Version}}\t{{.Dir}}"}
	out, err := c.run(ctx, append(list, paths(modules)...)...)
	if err != nil {
		return nil, err
	}

	for line := range strings.Lines(out) {
		module, dir, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "\t")
		if dir != "" {
			dirs[module] = dir
		}
	}

	for _, module := range modules {
		if dirs[module] == "" {
			return nil, fmt.Errorf("module %s is not in the module cache, or not of go.mod's version", module)
		}
	}

	return dirs, nil
}

func paths(modules []string) (paths []string) {
	for _, module := range modules {
		path, _, _ := strings.Cut(module, "@")
		paths = append(paths, path)
	}
	return paths
}

func (c Collector) run(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = c.Dir

	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("go %s: %w: %s", args[0], err, strings.TrimSpace(stderr.String()))
	}
	return string(out), err
}

// documents are the texts of licences and notices in a directory.
func documents(dir string) (texts []string, err error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}

	for _, entry := range entries {
		if !entry.Type().IsRegular() || !document.MatchString(entry.Name()) {
			continue
		}

		text, err := os.ReadFile(filepath.Join(dir, entry.Name()))
		if err != nil {
			return nil, err
		}
		texts = append(texts, strings.TrimSpace(string(text)))
	}

	return texts, nil
}

// join writes each text below the modules that have it.
func join(owners map[string][]string) []byte {
	texts := slices.SortedFunc(maps.Keys(owners), func(a, b string) int {
		return strings.Compare(owners[a][0]+a, owners[b][0]+b)
	})

	var out bytes.Buffer
	for _, text := range texts {
		fmt.Fprintf(&out, "%s\n%s\n\n%s\n\n", strings.Repeat("=", 80), strings.Join(owners[text], "\n"), text)
	}
	return out.Bytes()
}
