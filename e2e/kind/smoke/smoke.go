// Package smoke tries on a kind cluster what users of kind do with one, beside what the demo shows: they load
// images, have a registry of their own, mount directories of the host, publish ports, run an ingress
// controller, export logs, and stop and start the nodes. Each is a row of a table.
package smoke

import (
	"context"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/trivet-node/trivet/internal/retry"
)

// What a cluster is made with, so that there is something to try.
const (
	// Registry is the name by which the host and the nodes know one registry that serves the images of the
	// set base; RegistryPort is its port on the host.
	Registry     = "localhost:" + RegistryPort
	RegistryPort = "5001"

	// SharedMount is where every node has Smoke.Shared.
	SharedMount = "/shared"

	// IngressPort and NodePort are ports of the first node that the host has on ports which kind has chosen.
	IngressPort = 80
	NodePort    = 30080
)

// Cluster is what is needed of a cluster.
type Cluster interface {
	// Kubectl runs kubectl and returns what it prints.
	Kubectl(ctx context.Context, stdin string, args ...string) (string, error)

	// Output runs docker or kind and returns what it prints.
	Output(ctx context.Context, stdin, name string, args ...string) (string, error)

	// OnNode runs a shell script on a node and returns what it prints.
	OnNode(ctx context.Context, node, script string) (string, error)
}

// Smoke is the list for one cluster.
type Smoke struct {
	Cluster Cluster

	// Name is the cluster's, Nodes are those of its nodes: the first has published ports.
	Name  string
	Nodes []string

	Family Family

	// Dir is for files that are made on the way; Shared is the directory of the host that nodes have at
	// SharedMount.
	Dir    string
	Shared string

	// Keep leaves what Run has made for AfterReboot.
	Keep bool

	// Out hears of each row, Table receives the table.
	Out   io.Writer
	Table io.Writer
}

// row is something that users do. It ends with a remark, which may be empty.
type row struct {
	name string
	try  func(context.Context) (string, error)
}

// limit bounds a row.
const limit = 5 * time.Minute

// rows are in the order in which they are tried: those before the last are tried on nodes that never stopped.
func (s Smoke) rows() []row {
	return []row{
		{"kind get clusters, nodes, kubeconfig", s.get},
		{"kind load docker-image", images(s).loadDockerImage},
		{"kind load image-archive", images(s).loadImageArchive},
		{"local registry by hosts.toml", images(s).localRegistry},
		{"extraMounts", disk(s).extraMounts},
		{"pods and Services, ipFamily " + string(s.Family), network(s).addresses},
		{"extraPortMappings", network(s).extraPortMappings},
		{"ingress on host ports", network(s).ingress},
		{"nodes that share a disk", disk(s).sharedDisk},
		{"kind export logs", logs(s).export},
		{"docker stop and start of all nodes", reboot(s).restart},
	}
}

// result is how a row ended.
type result struct {
	row    row
	remark string
	err    error
	took   time.Duration
}

// Run tries all rows, prints the table, and returns an error if one of them has failed. What it has made is
// removed if none has, unless it is to be kept.
func (s Smoke) Run(ctx context.Context) error {
	if err := namespace(s).clean(ctx); err != nil {
		return err
	}
	if err := namespace(s).prepare(ctx); err != nil {
		return err
	}
	if err := s.tryAll(ctx, s.rows()); err != nil || s.Keep {
		return err
	}
	return namespace(s).clean(ctx)
}

// AfterReboot looks at what Run has kept after the host has lost its power and started again, adds that as a
// row to the table, and removes it if it works.
func (s Smoke) AfterReboot(ctx context.Context) error {
	rows := []row{{"the host loses power and starts again", reboot(s).afterPowerLoss}}
	if err := s.tryAll(ctx, rows); err != nil {
		return err
	}
	return namespace(s).clean(ctx)
}

// tryAll tries rows and prints them as a table.
func (s Smoke) tryAll(ctx context.Context, rows []row) error {
	var results []result
	failed := 0
	for _, r := range rows {
		results = append(results, s.try(ctx, r))
		if results[len(results)-1].err != nil {
			failed++
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}

	if err := s.print(results); err != nil {
		return err
	}
	if failed > 0 {
		return fmt.Errorf("%d of %d rows failed", failed, len(results))
	}
	return nil
}

func (s Smoke) try(ctx context.Context, r row) result {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()

	began := time.Now()
	remark, err := r.try(ctx)
	took := time.Since(began)
	fmt.Fprintf(s.Out, "         %s: %s (%.1f s)\n", r.name, verdict(remark, err), took.Seconds())
	return result{
		row:    r,
		remark: remark,
		err:    err,
		took:   took,
	}
}

func verdict(remark string, err error) string {
	if err != nil {
		return "FAILED: " + err.Error()
	}
	return strings.TrimSuffix("works, "+remark, ", ")
}

// print prints the table. An error is there in one line.
func (s Smoke) print(results []result) error {
	fmt.Fprintf(s.Table, "\nipFamily %s\n", s.Family)
	w := tabwriter.NewWriter(s.Table, 0, 8, 2, ' ', 0)
	fmt.Fprintf(w, "WHAT\tTIME\tRESULT\n")
	for _, r := range results {
		text := strings.Join(strings.Fields(verdict(r.remark, r.err)), " ")
		fmt.Fprintf(w, "%s\t%.1f s\t%.300s\n", r.row.name, r.took.Seconds(), text)
	}
	return w.Flush()
}

// until repeats a look until it finds nothing wrong, or ctx ends.
func until(ctx context.Context, look func(context.Context) error) error {
	const interval = 500 * time.Millisecond
	return retry.Until(ctx, retry.Backoff{First: interval, Max: interval}, look)
}

// get asks kind for what it knows of the cluster.
func (s Smoke) get(ctx context.Context) (string, error) {
	for _, c := range []struct{ noun, want string }{
		{"clusters", s.Name},
		{"nodes", s.Nodes[0]},
		{"kubeconfig", "server: https://"},
	} {
		args := []string{"get", c.noun}
		if c.noun != "clusters" {
			args = append(args, "--name="+s.Name)
		}

		out, err := s.Cluster.Output(ctx, "", "kind", args...)
		if err != nil {
			return "", err
		}
		if !strings.Contains(out, c.want) {
			return "", fmt.Errorf("kind get %s has no %q: %s", c.noun, c.want, out)
		}
	}
	return "", nil
}
