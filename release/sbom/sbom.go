// Package sbom lists what is in programs and images as a software bill of materials, in the form of CycloneDX
// 1.6: programs with their sums, the Go modules that are linked into them as the programs themselves say, and
// packages of Debian. Equal inputs give equal bytes, so there is no serial number.
package sbom

import (
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/trivet-node/trivet/internal/debian"
)

// Subject is what the list is of.
type Subject struct {
	Name    string
	Version string

	// Time is when it was made.
	Time time.Time

	// Programs of all architectures.
	Programs []Program

	// Packages of all architectures, nil for a subject that has none.
	Packages []debian.Package
}

// Program is a program that was built by Go.
type Program struct {
	Name string
	Arch string

	// File is where it is.
	File string
}

// Write writes the list.
func Write(w io.Writer, s Subject) error {
	list := list{
		components: map[string]component{},
		needs:      map[string]map[string]bool{s.Name: {}},
	}
	for _, program := range s.Programs {
		if err := list.addProgram(s, program); err != nil {
			return fmt.Errorf("program %s for %s: %w", program.Name, program.Arch, err)
		}
	}
	for _, p := range s.Packages {
		list.addPackage(s.Name, p)
	}

	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	encoder.SetEscapeHTML(false)
	return encoder.Encode(bom{
		Format:  "CycloneDX",
		Spec:    "1.6",
		Version: 1,
		Metadata: metadata{
			Timestamp: s.Time.UTC().Format(time.RFC3339),
			Component: component{
				Ref:     s.Name,
				Type:    application,
				Name:    s.Name,
				Version: s.Version,
			},
		},
		Components:   list.sorted(),
		Dependencies: list.dependencies(),
	})
}

// list is one that is being made.
type list struct {
	components map[string]component

	// needs has for each component those that it consists of.
	needs map[string]map[string]bool
}

// add adds a component that another one has in it.
func (l *list) add(of string, c component) {
	l.components[c.Ref] = c
	l.needs[of][c.Ref] = true
	if l.needs[c.Ref] == nil {
		l.needs[c.Ref] = map[string]bool{}
	}
}

func (l *list) addProgram(s Subject, p Program) error {
	info, err := buildinfo.ReadFile(p.File)
	if err != nil {
		return err
	}

	data, err := os.ReadFile(p.File)
	if err != nil {
		return err
	}

	ref := p.Name + "/" + p.Arch
	sum := sha256.Sum256(data)
	l.add(s.Name, component{
		Ref:        ref,
		Type:       application,
		Name:       p.Name,
		Version:    s.Version,
		Hashes:     []hash{{Algorithm: sha256Name, Content: hex.EncodeToString(sum[:])}},
		Properties: []property{{Name: "trivet:architecture", Value: p.Arch}},
	})

	l.add(ref, golang("std", strings.TrimPrefix(info.GoVersion, "go"), ""))
	for _, module := range info.Deps {
		linked := replaced(module)
		l.add(ref, golang(linked.Path, linked.Version, linked.Sum))
	}

	return nil
}

// replaced is the module whose code is linked.
func replaced(m *debug.Module) *debug.Module {
	if m.Replace != nil {
		return m.Replace
	}
	return m
}

// golang is a module of Go, or its standard library.
func golang(path, version, sum string) component {
	purl := "pkg:golang/" + path + "@" + escaped(version)
	c := component{
		Ref:        purl,
		Type:       library,
		Name:       path,
		Version:    version,
		PackageURL: purl,
	}
	if sum != "" {
		c.Properties = []property{{Name: "trivet:go.sum", Value: sum}}
	}
	return c
}

func (l *list) addPackage(of string, p debian.Package) {
	purl := fmt.Sprintf("pkg:deb/debian/%s@%s?arch=%s&upstream=%s", escaped(p.Name), escaped(p.Version),
		p.Architecture, escaped(p.Source+"@"+p.SourceVersion))
	l.add(of, component{
		Ref:        purl,
		Type:       library,
		Name:       p.Name,
		Version:    p.Version,
		PackageURL: purl,
		Hashes:     []hash{{Algorithm: sha256Name, Content: p.SHA256}},
	})
}

// escaped is text as a package URL has it.
func escaped(text string) string {
	return strings.NewReplacer("%", "%25", "+", "%2B", ":", "%3A", "@", "%40", "~", "%7E").Replace(text)
}

func (l *list) sorted() []component {
	var all []component
	for _, ref := range slices.Sorted(maps.Keys(l.components)) {
		all = append(all, l.components[ref])
	}
	return all
}

func (l *list) dependencies() []dependency {
	var all []dependency
	for _, ref := range slices.Sorted(maps.Keys(l.needs)) {
		needs := slices.Sorted(maps.Keys(l.needs[ref]))
		if len(needs) > 0 {
			all = append(all, dependency{Ref: ref, DependsOn: needs})
		}
	}
	return all
}
