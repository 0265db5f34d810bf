// Package cnisuite runs the tests of upstream's CNI plugins against a program that takes their place. The
// tests call functions of the plugin that they are compiled with; in a copy of the module those are
// replaced by ones that run the program, as a runtime does: by environment, standard input and the name
// that it is called by.
package cnisuite

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// Module is upstream's.
const Module = "github.com/containernetworking/plugins"

// Suites are those of the plugins that the program has, by their directories in the module.
var Suites = []string{
	"plugins/main/bridge",
	"plugins/main/ptp",
	"plugins/main/loopback",
	"plugins/ipam/host-local",
	"plugins/ipam/static",
	"plugins/meta/portmap",
	"plugins/meta/firewall",
	"plugins/meta/bandwidth",
	"plugins/meta/tuning",
	"plugins/meta/sbr",
}

// Run is one run of the suites.
type Run struct {
	// Versions is the directory of the nested module that says which version of the module it is.
	Versions string
	// Work is a directory for the copy of the module and what is built of it.
	Work string
	// Plugins has the program under the names of the plugins.
	Plugins string
	// Timeout bounds one suite.
	Timeout time.Duration
}

// Result is what a suite says.
type Result struct {
	Suite          string
	Passed, Failed int
	// Worded are the failures because of an error that was expected and has other words than upstream's.
	Worded  int
	Skipped int
	// Failures are the names of the tests that failed, with the first line of what each says.
	Failures []Failure
}

// Failure is a test that failed.
type Failure struct{ Test, Reason string }

// Prepare copies the module and replaces what its tests call.
func (r Run) Prepare(ctx context.Context) error {
	if err := r.run(ctx, r.Versions, "go", "mod", "download", Module); err != nil {
		return err
	}

	list := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", Module)
	list.Dir = r.Versions
	out, err := list.Output()
	if err != nil {
		return fmt.Errorf("find module %s: %w", Module, err)
	}

	if err := os.RemoveAll(r.source()); err != nil {
		return err
	}
	if err := os.CopyFS(r.source(), os.DirFS(strings.TrimSpace(string(out)))); err != nil {
		return err
	}

	if err := os.MkdirAll(r.tools(), 0o755); err != nil {
		return err
	}
	if err := r.linkPing(); err != nil {
		return err
	}

	for _, suite := range Suites {
		if err := r.replace(suite); err != nil {
			return fmt.Errorf("suite %s: %w", suite, err)
		}
	}

	return nil
}

func (r Run) source() string { return filepath.Join(r.Work, "src") }

// entry matches where a plugin's operation begins.
var entry = regexp.MustCompile(`(?m)^func (cmd(?:Add|Del|Check|Status|GC))\(`)

// built matches where a suite builds the plugin itself.
var built = regexp.MustCompile(`gexec\.Build\("` + Module + `/plugins/[a-z]+/([a-z-]+)"\)`)

// replace replaces the operations of one plugin.
func (r Run) replace(suite string) error {
	dir := filepath.Join(r.source(), suite)
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		return err
	}

	var operations []string
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			return err
		}

		if strings.HasSuffix(file, "_test.go") {
			if err := r.replaceBuild(dir, data); err != nil {
				return err
			}
			data = built.ReplaceAll(data, []byte(`lookUp("$1")`))
			if !hasDummy() {
				data = bytes.ReplaceAll(data, []byte("netlink.Dummy{"), []byte("netlink."+standIn(suite)+"{"))
			}
		} else {
			for _, m := range entry.FindAllSubmatch(data, -1) {
				operations = append(operations, string(m[1]))
			}
			data = entry.ReplaceAll(data, []byte("func upstream_$1("))
		}

		// The copies of a module's files cannot be written.
		if err := os.Remove(file); err != nil {
			return err
		}
		if err := os.WriteFile(file, data, 0o644); err != nil {
			return err
		}
	}

	return os.WriteFile(filepath.Join(dir, "blackbox.go"), blackBox(filepath.Base(suite), operations), 0o644)
}

// standIn is the kind of interface that a suite makes do with where the kernel has no dummies. What ifb takes
// is enough for all but tuning, which sets MAC addresses.
func standIn(suite string) string {
	if filepath.Base(suite) == "tuning" {
		return "Bridge"
	}
	return "Ifb"
}

// hasDummy reports whether the kernel has interfaces of the kind dummy.
func hasDummy() bool {
	const probe = "unshare --net ip link add probe type dummy"
	return exec.Command("sh", "-c", probe).Run() == nil
}

// linkPing has the suites find ping where only busybox has it.
func (r Run) linkPing() error {
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		return nil
	}

	for _, name := range []string{"ping", "ping6"} {
		if _, err := exec.LookPath(name); err == nil {
			continue
		}

		err := os.Symlink(busybox, filepath.Join(r.tools(), name))
		if err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}

	return nil
}

// tools is a directory of programs that the suites want.
func (r Run) tools() string { return filepath.Join(r.Work, "tools") }

// clause matches the package clause of a file.
var clause = regexp.MustCompile(`(?m)^package (\w+)$`)

// replaceBuild has a suite that builds the plugin itself find the program in PATH.
func (r Run) replaceBuild(dir string, test []byte) error {
	if !built.Match(test) {
		return nil
	}

	const source = `package %s

import "os/exec"

func lookUp(plugin string) (string, error) { return exec.LookPath(plugin) }
`
	name := clause.FindSubmatch(test)[1]
	return os.WriteFile(filepath.Join(dir, "lookup_test.go"), fmt.Appendf(nil, source, name), 0o644)
}

// blackBox returns the source of the operations that run the program.
func blackBox(plugin string, operations []string) []byte {
	var b bytes.Buffer
	b.WriteString(blackBoxHead)
	for _, name := range operations {
		verb := strings.ToUpper(strings.TrimPrefix(name, "cmd"))
		const format = "\nfunc %s(args *skel.CmdArgs) error { return runBlackBox(%q, %q, args) }\n"
		fmt.Fprintf(&b, format, name, plugin, verb)
	}
	return b.Bytes()
}

// blackBoxHead is what all of them have. A result goes where the test has led standard output.
const blackBoxHead = `package main

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
)

func runBlackBox(plugin, verb string, args *skel.CmdArgs) error {
	cmd := exec.Command(filepath.Join(os.Getenv("BLACKBOX_DIR"), plugin))
	cmd.Env = append(os.Environ(),
		"CNI_COMMAND="+verb,
		"CNI_CONTAINERID="+args.ContainerID,
		"CNI_NETNS="+args.Netns,
		"CNI_IFNAME="+args.IfName,
		"CNI_ARGS="+args.Args,
		"CNI_PATH="+os.Getenv("PATH"),
		"CNI_NETNS_OVERRIDE=1",
	)
	cmd.Stdin = bytes.NewReader(args.StdinData)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		failure := &types.Error{}
		if json.Unmarshal(out, failure) == nil && failure.Code != 0 {
			return failure
		}
		return err
	}
	_, err = os.Stdout.Write(out)
	return err
}
`

// Test compiles a suite and runs it in network and mount namespaces of its own.
func (r Run) Test(ctx context.Context, suite string) (Result, error) {
	result := Result{Suite: suite}
	binary := filepath.Join(r.Work, filepath.Base(suite)+".test")
	dir := filepath.Join(r.source(), suite)
	if err := r.run(ctx, dir, "go", "test", "-c", "-vet=off", "-o", binary, "."); err != nil {
		return result, err
	}

	ctx, cancel := context.WithTimeout(ctx, r.Timeout)
	defer cancel()

	report := binary + ".json"
	if err := os.RemoveAll(report); err != nil {
		return result, err
	}

	// A failing test is a result, not a failure of the run: what counts is the report.
	const script = `mount -t tmpfs run /run && mkdir -p /run/netns && ip link set lo up && exec "$@"`
	err := r.run(ctx, dir, "unshare", "--net", "--mount", "sh", "-c", script, "suite",
		binary, "--ginkgo.json-report="+report, "--ginkgo.no-color")
	data, readErr := os.ReadFile(report)
	if readErr != nil {
		return result, fmt.Errorf("suite %s has no report: %w, %w", suite, err, readErr)
	}

	return result, result.parse(data)
}

// run runs a command with the plugins in its PATH. What it prints is in the error.
func (r Run) run(ctx context.Context, dir, name string, arguments ...string) error {
	c := exec.CommandContext(ctx, name, arguments...)
	c.Dir = dir
	c.Env = append(os.Environ(),
		"PATH="+r.Plugins+":"+r.tools()+":"+os.Getenv("PATH"),
		"BLACKBOX_DIR="+r.Plugins,
		"GOFLAGS=-mod=mod",
	)
	out, err := c.CombinedOutput()
	if err != nil {
		const most = 4000
		return fmt.Errorf("%s: %w: %s", strings.Join(c.Args, " "), err, out[max(0, len(out)-most):])
	}
	return nil
}

// worded matches what a test says that expected an error in other words.
var worded = regexp.MustCompile(`to match error|to contain substring|to have prefix`)

// parse reads a report of ginkgo.
func (r *Result) parse(data []byte) error {
	var reports []struct {
		SpecReports []struct {
			ContainerHierarchyTexts []string
			LeafNodeType            string
			LeafNodeText            string
			State                   string
			Failure                 struct{ Message string }
		}
	}
	if err := json.Unmarshal(data, &reports); err != nil {
		return err
	}

	for _, report := range reports {
		for _, s := range report.SpecReports {
			switch {
			case s.LeafNodeType != "It":
			case s.State == "passed":
				r.Passed++
			case s.State == "skipped" || s.State == "pending":
				r.Skipped++
			default:
				r.Failed++
				if worded.MatchString(s.Failure.Message) {
					r.Worded++
				}
				name := strings.Join(append(s.ContainerHierarchyTexts, s.LeafNodeText), " ")
				r.Failures = append(r.Failures, Failure{Test: name, Reason: firstLines(s.Failure.Message)})
			}
		}
	}

	return nil
}

// firstLines shortens a message to what fits a line.
func firstLines(message string) string {
	const most = 300
	text := strings.Join(strings.Fields(message), " ")
	return text[:min(len(text), most)]
}
