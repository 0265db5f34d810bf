// Command trivet-kind brings up a kind cluster and puts trivet into it, part by part.
package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/trivet-node/trivet/e2e/kind"
	"github.com/trivet-node/trivet/e2e/kind/dockerhost"
	"github.com/trivet-node/trivet/e2e/kind/ociwrapper"
	"github.com/trivet-node/trivet/e2e/kind/smoke"
	"github.com/trivet-node/trivet/e2e/machine"
	"github.com/trivet-node/trivet/internal/program"
)

const about = `trivet-kind brings up a kind cluster of two nodes and puts trivet into it.

  up                  the cluster, without a network add-on
  install             put the parts of trivet into it one after the other, and show the demo with each
  remove              take them away again in reverse
  restart             restart the worker, and show the demo afterwards
  broken              put parts that do not work on the worker, which takes them back (with install --parts=2)
  swap                exchange trivet-node for kubelet on the control plane, and back
  upgrade             have kubeadm bring the cluster to the version of --bin (with up --kubernetes=DIR)
  smoke               try what users of kind do with a cluster, and print a table
  reboot              have the host of the nodes lose its power, and start it again
  measure             pods' starts and ends on both nodes in turns, and the memory of the nodes' daemons
  run COMMAND...      run a command that sees the cluster: kubectl, docker, kind, sh
  down                take it down; nothing is left but what can be used again`

func main() {
	if filepath.Base(os.Args[0]) == ociwrapper.Name {
		fmt.Fprintln(os.Stderr, ociwrapper.Exec(os.Args[1:]))
		os.Exit(1)
	}
	program.Tool("trivet-kind", run)
}

func run(ctx context.Context, env *program.Env) error {
	if done, err := machine.Verb(ctx, env.Args); done {
		return err
	}

	verb := ""
	if len(env.Args) > 0 && !strings.HasPrefix(env.Args[0], "-") {
		verb, env.Args = env.Args[0], env.Args[1:]
	}

	s, err := configure(env, verb)
	if err != nil {
		return err
	}

	c := s.cluster
	switch verb {
	case "up":
		if err := c.Start(ctx); err != nil {
			return err
		}
		return c.Create(ctx)
	case "down":
		return c.Down(ctx)
	case "reboot":
		return c.Docker.Reboot(ctx)
	}

	if err := c.Docker.Enter(); err != nil {
		return err
	}
	return s.inside(ctx, env, verb)
}

// inside carries out a verb by a process that reaches the cluster.
func (s *session) inside(ctx context.Context, env *program.Env, verb string) error {
	c := s.cluster
	course := kind.Course{
		Cluster: c,
		Parts:   s.parts,
		Once:    s.once,
		Reboots: s.reboots,
	}

	switch verb {
	case "install":
		if s.parts < 0 {
			course.Parts = course.All()
		}
		return course.Install(ctx)
	case "remove":
		course.Parts = max(0, s.parts)
		return course.Remove(ctx)
	case "restart":
		return course.Restart(ctx)
	case "broken":
		return course.TryBroken(ctx)
	case "swap":
		return course.Swap(ctx)
	case "upgrade":
		return course.Upgrade(ctx)
	case "smoke":
		return course.Smoke(ctx, s.table, s.reboot)
	case "measure":
		return kind.Comparison{Cluster: c, Rounds: s.rounds}.Run(ctx)
	default:
		return command(ctx, env, c, s.args)
	}
}

// session is one call of the program.
type session struct {
	cluster *kind.Cluster
	parts   int
	once    bool
	reboots bool
	table   string
	reboot  string
	rounds  int

	// args are behind verb and flags.
	args []string
}

func configure(env *program.Env, verb string) (*session, error) {
	c := &kind.Cluster{Out: env.Stdout, Began: began()}
	s := &session{cluster: c}
	flags := env.Flags(about)
	flags.StringVar(&c.Dir, "dir", ".trivet/kind", "state directory")
	flags.StringVar(&c.Cache, "cache", ".trivet/kind", "directory of what clusters can use again")
	flags.StringVar(&c.Source, "source", ".", "root of the repository")
	flags.StringVar(&c.Bin, "bin", ".trivet/bin", "directory with the reference programs")
	flags.StringVar(&c.Ours, "programs", "bin", "directory with trivet's programs")
	flags.StringVar(&c.Images, "images", ".trivet/images", "OCI layouts that the nodes pull from")
	flags.StringVar(&c.Mirror, "mirror", "", "up: archive of Debian; empty: that of apt")
	flags.StringVar(&c.Image, "image", "",
		"up: published image of the nodes, on your Docker; empty: image and Docker are made here")
	flags.StringVar(&c.Kubernetes, "kubernetes", "",
		"up: directory with kubeadm, kubectl and kubelet of another version; empty: --bin")
	nodes := flags.String("nodes", "kind", "up: kind, or trivet: nodes that have trivet from the start")
	family := flags.String("family", "ipv4", "up: addresses of the cluster: ipv4, ipv6 or dual")
	flags.IntVar(&s.parts, "parts", -1, "how many of the parts are there in the end (install: default all)")
	flags.BoolVar(&s.once, "once", false, "install: show the demo with the last part only")
	flags.BoolVar(&s.reboots, "reboots", false, "install: restart the worker with each part")
	flags.StringVar(&s.table, "table", "", "smoke: file to which the table is appended; empty: it is printed")
	flags.StringVar(&s.reboot, "reboot", "",
		"smoke: before (leave what is there) or after (only look whether that works again) the verb reboot")
	flags.IntVar(&s.rounds, "rounds", 21, "measure: pods on each node")
	if err := env.Parse(flags); err != nil {
		return nil, err
	}

	if err := makeAbsolute(c); err != nil {
		return nil, err
	}

	c.Trivet = *nodes == "trivet"
	if c.Family = smoke.Family(*family); c.Family == smoke.IPv4 {
		c.Family = ""
	}
	if err := s.check(verb, *nodes); err != nil {
		return nil, err
	}
	if err := recall(c, verb); err != nil {
		return nil, err
	}

	s.args = flags.Args()

	if c.Image != "" {
		c.Docker = dockerhost.Users{}
		return s, nil
	}

	c.Docker = &dockerhost.Own{
		Dir:      c.Dir,
		Programs: filepath.Join(c.Cache, "docker"),
		Expose:   []string{c.Source, c.Bin, c.Ours, c.Images},
	}
	return s, program.RequireRoot()
}

// makeAbsolute makes the paths of a cluster absolute.
func makeAbsolute(c *kind.Cluster) error {
	paths := []*string{&c.Dir, &c.Cache, &c.Source, &c.Bin, &c.Ours, &c.Images}
	if c.Kubernetes != "" {
		paths = append(paths, &c.Kubernetes)
	}

	for _, p := range paths {
		abs, err := filepath.Abs(*p)
		if err != nil {
			return err
		}

		*p = abs
	}
	return nil
}

var verbs = []string{
	"up", "install", "remove", "restart", "broken", "swap", "upgrade", "smoke", "reboot", "measure",
	"run", "down",
}

// check checks what was asked for.
func (s *session) check(verb, nodes string) error {
	c := s.cluster
	if !slices.Contains(verbs, verb) {
		return &program.UsageError{Err: fmt.Errorf("%q is not a verb, see trivet-kind --help", verb)}
	}
	if nodes != "kind" && nodes != "trivet" {
		return &program.UsageError{Err: fmt.Errorf("--nodes=%s: neither kind nor trivet", nodes)}
	}
	if c.Family != "" && !slices.Contains(smoke.Families, c.Family) {
		return &program.UsageError{Err: fmt.Errorf("--family=%s: none of ipv4, ipv6 and dual", c.Family)}
	}
	if !slices.Contains([]string{"", kind.BeforeReboot, kind.AfterReboot}, s.reboot) {
		return &program.UsageError{Err: fmt.Errorf("--reboot=%s: neither before nor after", s.reboot)}
	}
	if c.Kubernetes != "" && c.Image != "" {
		return &program.UsageError{Err: errors.New("--kubernetes: a published image has its version")}
	}
	if c.Trivet && c.Image != "" {
		return &program.UsageError{Err: errors.New("--nodes=trivet: a published image does not have trivet")}
	}
	return nil
}

// recall makes c the cluster that is up, for the verbs that need one.
func recall(c *kind.Cluster, verb string) error {
	if verb == "up" {
		return nil
	}

	record, err := kind.ReadRecord(c.Dir)
	if errors.Is(err, fs.ErrNotExist) && verb == "down" {
		return nil
	}
	if errors.Is(err, fs.ErrNotExist) {
		return errors.New("no kind cluster is up")
	}

	if err != nil {
		return err
	}

	c.Image = record.Image
	c.Trivet = record.Trivet
	c.Family = record.Family
	c.Kubernetes = record.Kubernetes
	return nil
}

// beganVariable has the start of a call that executes itself again in another namespace.
const beganVariable = "TRIVET_KIND_BEGAN"

func began() time.Time {
	if ns, err := strconv.ParseInt(os.Getenv(beganVariable), 10, 64); err == nil {
		return time.Unix(0, ns)
	}

	now := time.Now()
	_ = os.Setenv(beganVariable, strconv.FormatInt(now.UnixNano(), 10))
	return now
}

// command runs a command that sees the cluster.
func command(ctx context.Context, env *program.Env, c *kind.Cluster, args []string) error {
	if len(args) == 0 {
		return &program.UsageError{Err: errors.New("run what?")}
	}

	cmd := c.Command(ctx, args[0], args[1:]...)
	cmd.Stdin = env.Stdin
	cmd.Stdout, cmd.Stderr = env.Stdout, env.Stderr
	return cmd.Run()
}
