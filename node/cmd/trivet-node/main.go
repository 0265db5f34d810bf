// trivet-node runs the pods that Kubernetes bound to this node, in the place of kubelet.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"k8s.io/klog/v2"

	"github.com/trivet-node/trivet/internal/program"
	"github.com/trivet-node/trivet/node/agent"
	"github.com/trivet-node/trivet/node/config"
)

const about = `trivet-node is a Kubernetes node agent: it takes the place of kubelet. It registers this
machine as a node, runs the pods that are bound to it through a CRI container runtime, and reports how
they are. It reads kubelet's flags and KubeletConfiguration files.`

func main() { program.Main("trivet-node", run) }

func run(ctx context.Context, env *program.Env) error {
	if slices.Equal(env.Args, []string{"--version"}) && filepath.Base(os.Args[0]) == "kubelet" {
		// kubeadm asks for the version by this name.
		_, err := fmt.Fprintln(env.Stdout, "Kubernetes", agent.KubernetesVersion)
		return err
	}

	env.Args = config.Normalize(env.Args)
	fs := env.Flags(about)
	flags := config.Register(fs)
	if err := env.Parse(fs); err != nil {
		return err
	}

	cfg, err := config.Read(flags)
	if err != nil {
		return &program.UsageError{Err: oneLine(err)}
	}

	for _, notice := range cfg.Notices {
		env.Log.Warn("configuration", "notice", notice)
	}

	if err := program.RequireRoot(); err != nil {
		return err
	}

	klog.SetSlogLogger(env.Log)
	program.SmallHeap()
	return agent.Run(ctx, cfg, env)
}

// oneLine puts several errors into one line: every program of the project ends with one.
func oneLine(err error) error { return errors.New(strings.ReplaceAll(err.Error(), "\n", "; ")) }
