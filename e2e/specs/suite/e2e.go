package suite

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
)

// E2E is the published end-to-end suite of Kubernetes, with the cluster against which it runs.
type E2E struct {
	// Program is the path of e2e.test, Ginkgo that of the ginkgo command, which runs it in several processes.
	Program string
	Ginkgo  string

	// Kubeconfig is an administrator's; Kubectl is the program that some specs run.
	Kubeconfig string
	Kubectl    string

	// Nodes is how many nodes the cluster has. A suite in several processes that is not told skips what needs
	// two of them.
	Nodes int

	// Drivers are files that define drivers of volumes that the suite does not know.
	Drivers []string

	// ReportDir receives junit_01.xml, e2e.log, and what specs say about their failures, of each batch in a
	// directory of its own if it has a name.
	ReportDir string
}

// Batch are specs that run in one call of the suite.
type Batch struct {
	// Name is that of the directory in ReportDir for what this call writes; without it, it is ReportDir
	// itself. Batches that run at the same time have different ones.
	Name string

	// Specs are the names of the specs.
	Specs []string

	// Procs is how many of them run at the same time. Those that are marked as [Serial] run after all others
	// of the batch, alone.
	Procs int
}

// Names returns the names of all specs that the suite has.
func (e E2E) Names(ctx context.Context) ([]string, error) {
	args := append([]string{"--list-tests"}, e.defined()...)
	out, err := exec.CommandContext(ctx, e.Program, args...).Output()
	if err != nil {
		return nil, fmt.Errorf("list the specs of %s: %w", e.Program, err)
	}

	names := listed(string(out))
	if len(names) == 0 {
		return nil, fmt.Errorf("list the specs of %s: there are none", e.Program)
	}

	return names, nil
}

// listed returns the names in the output of e2e.test --list-tests: lines such as
// "    k8s.io/kubernetes@v1.37.2/test/e2e/network/dns.go:44: [sig-network] DNS should provide DNS".
func listed(out string) []string {
	var names []string
	for line := range strings.Lines(out) {
		where, name, found := strings.Cut(strings.TrimSpace(line), ": ")
		if found && strings.Contains(where, ".go:") {
			names = append(names, name)
		}
	}
	return names
}

// Version returns the version of the suite, such as "v1.37.2".
func (e E2E) Version(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, e.Program, "--version").Output()
	if err != nil {
		return "", fmt.Errorf("version of %s: %w", e.Program, err)
	}
	return strings.TrimSpace(string(out)), nil
}

// Run runs a batch and returns one result a spec, in their order. ended is called for specs as they end, in
// the goroutine of the caller, but not for all: one at a time they run in one process, without Ginkgo, and
// what that prints does not show the end of each.
//
// The error is about the run itself (the suite cannot start, its report cannot be read); failed specs are
// results. The end of ctx ends the suite.
func (e E2E) Run(ctx context.Context, b Batch, ended func(Result)) ([]Result, error) {
	e.ReportDir = filepath.Join(e.ReportDir, b.Name)
	found, err := Execute(e.command(ctx, b), e.ReportDir, asListed(b.Specs, ended))
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if err != nil {
		return nil, err
	}

	results, err := pick(found, b.Specs)
	if err != nil {
		return nil, fmt.Errorf("%w; its output is in %s", err, filepath.Join(e.ReportDir, logName))
	}

	return results, nil
}

// asListed has ended called with the names of the listing: what ginkgo prints as a spec ends has one more
// space for each container without a text.
func asListed(names []string, ended func(Result)) func(Result) {
	words := func(name string) string { return strings.Join(strings.Fields(name), " ") }
	byWords := map[string]string{}
	for _, name := range names {
		byWords[words(name)] = name
	}
	return func(r Result) {
		r.Name = cmp.Or(byWords[words(r.Name)], r.Name)
		ended(r)
	}
}

// command is that of the suite. It and all that it starts end with this process, even one that is killed:
// specs that went on would disturb those of the next run.
func (e E2E) command(ctx context.Context, b Batch) *exec.Cmd {
	name, args := e.line(b)
	cmd := exec.CommandContext(ctx, name, args...)
	cache := filepath.Join(filepath.Dir(e.Kubeconfig), "kubectl-cache")
	cmd.Env = append(os.Environ(), "KUBECACHEDIR="+cache)
	if os.Geteuid() == 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{
			Cloneflags: syscall.CLONE_NEWPID,
			Pdeathsig:  syscall.SIGKILL,
		}
	}

	return cmd
}

// line is the command line.
func (e E2E) line(b Batch) (program string, args []string) {
	own := []string{
		"--provider=skeleton",
		"--kubeconfig=" + e.Kubeconfig,
		"--kubectl-path=" + e.Kubectl,
		"--report-dir=" + e.ReportDir,
		"--disable-log-dump=true",
		"--dns-domain=cluster.local",
		fmt.Sprintf("--num-nodes=%d", e.Nodes),
	}
	own = append(own, e.defined()...)
	if b.Procs <= 1 {
		own = append(own, "--ginkgo.no-color", "--ginkgo.v")
		return e.Program, append(own, focusOn("--ginkgo.focus=", b.Specs)...)
	}

	// The time that ginkgo gives a whole suite is an hour, unless it is told.
	args = []string{
		"run",
		fmt.Sprintf("--procs=%d", b.Procs),
		"--no-color",
		"-v",
		"--keep-going",
		"--timeout=48h",
	}
	args = append(args, focusOn("--focus=", b.Specs)...)
	args = append(args, e.Program, "--")

	return e.Ginkgo, append(args, own...)
}

// defined are the flags that name the files of drivers.
func (e E2E) defined() (flags []string) {
	for _, file := range e.Drivers {
		flags = append(flags, "--storage.testdriver="+file)
	}
	return flags
}

// focusEach is how many specs one flag names: the kernel takes no argument of more than 128 KiB, and no name
// is longer than 600 bytes.
const focusEach = 100

// focusOn returns flags with regular expressions that match, together, just the given names. Ginkgo matches
// them with the name of the suite before that of the spec.
func focusOn(flag string, names []string) []string {
	var flags []string
	for some := range slices.Chunk(names, focusEach) {
		quoted := make([]string, len(some))
		for i, n := range some {
			quoted[i] = regexp.QuoteMeta(n)
		}

		flags = append(flags, flag+"("+strings.Join(quoted, "|")+")$")
	}

	return flags
}

// pick returns the results of the names. It is an error if the suite ended before all of them had run.
func pick(found map[string]Result, names []string) ([]Result, error) {
	notRun := 0
	out := make([]Result, len(names))
	for i, n := range names {
		r, ok := found[n]
		switch {
		case !ok:
			r = Result{Name: n, Outcome: Missing, Message: "the suite has no spec of this name"}
		case r.LeftOut():
			notRun++
		}

		out[i] = r
	}

	if notRun > 0 {
		return out, fmt.Errorf("the suite ended before %d of %d specs had run", notRun, len(names))
	}

	return out, nil
}
