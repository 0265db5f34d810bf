package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"

	"github.com/trivet-node/trivet/cri/config"
	"github.com/trivet-node/trivet/cri/ctr"
	"github.com/trivet-node/trivet/cri/image"
	"github.com/trivet-node/trivet/cri/importer"
	"github.com/trivet-node/trivet/internal/program"
)

// answerCtr does what kind asks containerd's ctr for. Where the server is, the configuration file says.
func answerCtr(ctx context.Context, env *program.Env) error {
	call, err := ctr.Parse(env.Args, os.Getenv("CONTAINERD_NAMESPACE"))
	if err != nil {
		return &program.UsageError{Err: err}
	}

	cfg, err := newSettings(flag.NewFlagSet("ctr", flag.ContinueOnError), imageOptions).load()
	if err != nil {
		return &program.UsageError{Err: err}
	}

	switch c := call.(type) {
	case ctr.Import:
		return importFile(ctx, env, cfg, c.File, image.ImportOptions{Platform: c.Platform, Pinned: c.Pinned})
	case ctr.Tag:
		return tagAsCtr(ctx, env.Stdout, cfg, c)
	case ctr.List:
		if c.Quiet {
			return listNames(ctx, env.Stdout, cfg)
		}
	}

	return listAction(ctx, env, cfg, nil)
}

// tagAsCtr gives an image further names, and prints them.
func tagAsCtr(ctx context.Context, to io.Writer, cfg config.Config, c ctr.Tag) error {
	if err := importer.Tag(ctx, importSocket(cfg.StateDir), c.Image, c.Names, c.Force); err != nil {
		return err
	}

	for _, name := range c.Names {
		fmt.Fprintln(to, name)
	}

	return nil
}

// listNames prints all that images are known by, one a line.
func listNames(ctx context.Context, to io.Writer, cfg config.Config) error {
	list, err := listImages(ctx, cfg)
	if err != nil {
		return err
	}

	for _, i := range list {
		for _, name := range append(append(i.RepoTags, i.RepoDigests...), i.Id) {
			fmt.Fprintln(to, name)
		}
	}

	return nil
}

// answerContainerd prints what kind looks for in the configuration of containerd.
func answerContainerd(_ context.Context, env *program.Env) error {
	if err := ctr.CheckDump(env.Args); err != nil {
		return &program.UsageError{Err: err}
	}
	_, err := io.WriteString(env.Stdout, ctr.Config)
	return err
}
