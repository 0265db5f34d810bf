// Package ociwrapper is an OCI runtime that stands before runc where the machine withholds CAP_SYS_RESOURCE,
// as sandboxes of CI do: dockerd then cannot start a privileged container, because runc may not give what it
// does not have itself. The wrapper takes that capability, limits of resources and negative OOM scores out of
// what it is asked for (OCI runtime-spec, config.md, Process), and executes runc.
package ociwrapper

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/internal/durable"
)

// Name is the name by which the program that uses this package runs as the wrapper.
const Name = "trivet-kind-runtime"

// withheld is the capability that machines withhold.
const withheld = "CAP_SYS_RESOURCE"

// Needed reports whether this process lacks what runc would hand on.
func Needed() (bool, error) {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}

	// Version 3 has two words of each set.
	var sets [2]unix.CapUserData
	if err := unix.Capget(&header, &sets[0]); err != nil {
		return false, fmt.Errorf("read own capabilities: %w", err)
	}

	return sets[0].Effective&(1<<unix.CAP_SYS_RESOURCE) == 0, nil
}

// Exec prepares what the arguments of an OCI runtime name, and executes runc with them. It returns only an
// error.
func Exec(args []string) error {
	runc, err := exec.LookPath("runc")
	if err != nil {
		return err
	}
	if err := Prepare(args); err != nil {
		return err
	}
	return unix.Exec(runc, append([]string{"runc"}, args...), os.Environ())
}

// Prepare edits the configuration of the container that is created, or of the process that is executed.
func Prepare(args []string) error {
	if bundle := value(args, "--bundle", "-b"); bundle != "" {
		return edit(filepath.Join(bundle, "config.json"), func(config map[string]any) {
			process, _ := config["process"].(map[string]any)
			lower(process)
		})
	}

	if process := value(args, "--process", "-p"); process != "" {
		return edit(process, lower)
	}

	return nil
}

// value is that of a flag under one of its names; "" when it is not given.
func value(args []string, names ...string) string {
	for i, arg := range args {
		name, value, joined := strings.Cut(arg, "=")
		switch {
		case !slices.Contains(names, name):
		case joined:
			return value
		case i+1 < len(args):
			return args[i+1]
		}
	}
	return ""
}

// lower takes out of a process what only CAP_SYS_RESOURCE allows.
func lower(process map[string]any) {
	delete(process, "rlimits")
	if score, ok := process["oomScoreAdj"].(json.Number); ok && strings.HasPrefix(score.String(), "-") {
		delete(process, "oomScoreAdj")
	}

	sets, _ := process["capabilities"].(map[string]any)
	for name, set := range sets {
		all, _ := set.([]any)
		sets[name] = slices.DeleteFunc(all, func(c any) bool { return c == withheld })
	}
}

func edit(path string, change func(map[string]any)) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}

	// Numbers stay as they are written: some are larger than a float64 can tell apart.
	var object map[string]any
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.UseNumber()
	if err := decoder.Decode(&object); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if object == nil {
		return fmt.Errorf("%s: %w", path, errors.New("no object"))
	}

	change(object)
	if data, err = json.Marshal(object); err != nil {
		return err
	}

	return durable.WriteVolatile(path, data, 0o600)
}
