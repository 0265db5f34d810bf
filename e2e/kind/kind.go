// Package kind is a Kubernetes cluster made by kind, with two nodes, into which trivet is put part by part
// while it runs (package part), or whose nodes have trivet from the start. It works without a network but
// Debian's archive: Docker and the nodes' image are made here (packages dockerhost and nodeimage); or with
// the Docker and the published image that a user has.
package kind

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/trivet-node/trivet/e2e/kind/nodeimage"
	"github.com/trivet-node/trivet/e2e/kind/smoke"
	"github.com/trivet-node/trivet/e2e/leaks"
)

// Docker is where the containers of the nodes run.
type Docker interface {
	// Fetch brings what it is made of, Up starts it. Both do nothing where that is done.
	Fetch(ctx context.Context) error
	Up(ctx context.Context) error

	// Running reports whether it runs.
	Running() bool

	// Enter makes this process one that reaches ports which containers publish.
	Enter() error

	// Environ are the variables by which commands find it.
	Environ() []string

	// Reboot has its host lose power, and starts both again. A process must enter it once more.
	Reboot(ctx context.Context) error

	// Down ends it, and Leaks lists what it has left.
	Down(ctx context.Context) error
	Leaks() ([]leaks.Leak, error)
}

// Cluster is a handle on what lives below Dir. All paths are absolute.
type Cluster struct {
	Dir    string // state
	Cache  string // what can be used again
	Source string // root of the repository
	Bin    string // reference programs
	Ours   string // trivet's programs
	Images string // OCI layouts that the nodes' registry serves

	// Image is a published image of kind's; "": one that is made here.
	Image string

	// Trivet says whether the nodes have trivet in all seats from the start.
	Trivet bool

	// Family is that of the addresses of pods, Services and nodes; "" is IPv4.
	Family smoke.Family

	// Kubernetes is the directory with kubeadm, kubectl and kubelet of the version that the cluster is
	// created with; "" for those in Bin.
	Kubernetes string

	// Mirror is the archive of Debian; "": that of the host's apt.
	Mirror string

	Docker Docker
	Out    io.Writer

	// Began is when the first line of progress counts from.
	Began time.Time
}

func (c *Cluster) path(elem ...string) string {
	return filepath.Join(append([]string{c.Dir}, elem...)...)
}

// Say prints a line of progress.
func (c *Cluster) Say(format string, args ...any) {
	fmt.Fprintf(c.Out, "%6.1fs  %s\n", time.Since(c.Began).Seconds(), fmt.Sprintf(format, args...))
}

// Kubeconfig is the administrator's.
func (c *Cluster) Kubeconfig() string { return c.path("kubeconfig") }

// Environ are the variables by which commands find the cluster: its Docker, and the programs. What kubectl
// keeps in the user's home lies in the directory of the cluster.
func (c *Cluster) Environ() []string {
	env := []string{
		"PATH=" + os.Getenv("PATH"),
		"KUBECONFIG=" + c.Kubeconfig(),
		"KUBECACHEDIR=" + c.path("kubectl-cache"),
	}
	env = append(env, c.Docker.Environ()...)

	// The last of several wins.
	for _, variable := range slices.Backward(env) {
		if path, ok := strings.CutPrefix(variable, "PATH="); ok {
			return append(env, "PATH="+c.Bin+":"+path)
		}
	}
	return env
}

// Command is a command with this environment. It is interrupted when ctx ends.
func (c *Cluster) Command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, c.lookPath(name), args...)
	cmd.Env = append(os.Environ(), c.Environ()...)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 5 * time.Second

	// Nothing goes on when this process is killed.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}

// lookPath finds a program in the PATH of the environment.
func (c *Cluster) lookPath(name string) string {
	var dirs string
	for _, variable := range c.Environ() {
		if path, ok := strings.CutPrefix(variable, "PATH="); ok {
			dirs = path
		}
	}

	for _, dir := range filepath.SplitList(dirs) {
		file := filepath.Join(dir, name)
		if info, err := os.Stat(file); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return file
		}
	}
	return name
}

// output is what a command prints; its error has what it said besides.
func output(cmd *exec.Cmd) (string, error) {
	var said strings.Builder
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		return string(out), fmt.Errorf("%s %s: %w: %s", filepath.Base(cmd.Path),
			strings.Join(cmd.Args[1:], " "), err, strings.TrimSpace(said.String()))
	}
	return string(out), nil
}

// Output runs a command that sees the cluster, as docker and kind, and returns what it prints.
func (c *Cluster) Output(ctx context.Context, stdin, name string, args ...string) (string, error) {
	cmd := c.Command(ctx, name, args...)
	cmd.Stdin = strings.NewReader(stdin)
	return output(cmd)
}

// Kubectl runs kubectl and returns what it prints.
func (c *Cluster) Kubectl(ctx context.Context, stdin string, args ...string) (string, error) {
	return c.Output(ctx, stdin, "kubectl", args...)
}

// OnNode runs a shell script on a node and returns what it prints.
func (c *Cluster) OnNode(ctx context.Context, node, script string) (string, error) {
	return c.Output(ctx, "", "docker", "exec", node, "sh", "-euc", script)
}

// Copy puts a file of the host on a node.
func (c *Cluster) Copy(ctx context.Context, node, file, path string) error {
	_, err := c.Output(ctx, "", "docker", "cp", "--follow-link", file, node+":"+path)
	return err
}

func (c *Cluster) nodes() nodeimage.Builder {
	docker := func(ctx context.Context, args ...string) *exec.Cmd { return c.Command(ctx, "docker", args...) }
	return nodeimage.Builder{
		Dir:        c.Dir,
		Cache:      c.Cache,
		Source:     c.Source,
		Bin:        c.Bin,
		Kubernetes: cmp.Or(c.Kubernetes, c.Bin),
		Ours:       c.Ours,
		Mirror:     c.Mirror,
		Docker:     docker,
		Out:        c.sampled(),
	}
}

// progressInterval is how often a long command shows a line of what it says.
const progressInterval = 10 * time.Second

func (c *Cluster) sampled() *sampled { return &sampled{out: c.Out, every: progressInterval} }

// Start brings Docker, and makes this process see what it publishes. The cluster that Create makes is the one
// that is recorded from now on.
func (c *Cluster) Start(ctx context.Context) error {
	if err := c.claim(ctx); err != nil {
		return err
	}
	if err := c.rememberHost(); err != nil {
		return err
	}
	if err := c.Docker.Fetch(ctx); err != nil {
		return fmt.Errorf("fetch Docker: %w", err)
	}

	if c.Image == "" {
		nodes := c.nodes()
		if !nodes.HasRoot() {
			c.Say("making the nodes' root file system of Debian's packages")
		}
		if err := nodes.Root(ctx); err != nil {
			return err
		}
	}

	if !c.Docker.Running() {
		c.Say("starting Docker")
	}
	if err := c.Docker.Up(ctx); err != nil {
		return err
	}

	return c.Docker.Enter()
}
