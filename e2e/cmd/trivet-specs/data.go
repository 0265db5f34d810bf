package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/trivet-node/trivet/e2e/specs"
	"github.com/trivet-node/trivet/e2e/specs/page"
	"github.com/trivet-node/trivet/e2e/specs/results"
	"github.com/trivet-node/trivet/internal/durable"
)

// Files of the repository, from where the command is called.
const (
	conformanceFile = "e2e/specs/conformance.txt"
	dataDir         = "docs/data/conformance"
	pageFile        = "docs/conformance.md"
	outsideFile     = "docs/conformance-outside.md"
)

// writeNames writes the names of the conformance set of the suite.
func (o *options) writeNames(ctx context.Context) error {
	all, err := o.suite.Names(ctx)
	if err != nil {
		return err
	}

	version, err := o.suite.Version(ctx)
	if err != nil {
		return err
	}

	return durable.WriteFile(conformanceFile, []byte(specs.FormatConformance(version, all)), 0o644)
}

// checkNames compares the names of the conformance set with those that were written for the version of the
// suite: a spec must not disappear unseen.
func (o *options) checkNames(ctx context.Context, all []string) error {
	version, err := o.suite.Version(ctx)
	if err != nil {
		return err
	}
	return compareNames(version, all)
}

func compareNames(version string, all []string) error {
	known, names := specs.Conformance()
	if specs.FormatConformance(version, all) != specs.FormatConformance(known, names) {
		return fmt.Errorf(
			"the conformance set of e2e.test %s is not that of %s in %s: run make conformance-names",
			version,
			known,
			conformanceFile,
		)
	}
	return nil
}

// writeData writes the results of a finished run, and the pages that are made of all such results.
func (o *options) writeData(tested results.Subject, set results.Set) error {
	if err := os.MkdirAll(o.data, 0o755); err != nil {
		return err
	}

	base := filepath.Base(o.set)
	name := strings.TrimSuffix(base, filepath.Ext(base)) + "-" + agentOf(tested) + ".jsonl"
	if err := results.Write(filepath.Join(o.data, name), tested, set); err != nil {
		return err
	}

	fmt.Fprintf(o.env.Stdout, "the results are in %s\n", filepath.Join(o.data, name))
	return writePages(o.data)
}

// agentOf is trivet or kubelet, the first of the seats.
func agentOf(tested results.Subject) string {
	agent, _, _ := strings.Cut(tested.Seats, " ")
	return strings.TrimSuffix(agent, "-node")
}

// writePages writes the pages that are made of the results in a directory.
func writePages(dir string) error {
	data, err := page.Load(dir)
	if err != nil {
		return err
	}

	for file, text := range map[string]string{
		pageFile:    page.Conformance(data),
		outsideFile: page.Outside(data),
	} {
		if err := durable.WriteFile(file, []byte(text), 0o644); err != nil {
			return err
		}
	}

	// The pages show what is wrong.
	return data.Check()
}
