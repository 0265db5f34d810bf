package ociruntime

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/opencontainers/runtime-spec/specs-go/features"
)

const (
	// featuresLimit bounds how long a runtime may take to say what it can.
	featuresLimit = 10 * time.Second

	// maxFeatures bounds what is read of it, in bytes.
	maxFeatures = 1 << 20
)

// MapsVolumes returns an error if the runtime does not show volumes with the IDs of a user namespace
// (uidMappings and gidMappings of a mount): one that does not know them ignores them, and a pod would have
// volumes that are not its own.
func (r Runtime) MapsVolumes(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, featuresLimit)
	defer cancel()

	// The features command of the OCI runtime specification, since its version 1.1.
	if out, err := r.ask(ctx, "features"); err == nil {
		var f features.Features
		if err := json.Unmarshal(out, &f); err != nil {
			return fmt.Errorf("%s features: %w", r.Program, err)
		}
		return r.hasUsers(f)
	}

	// crun has had mapped mounts for longer than that command.
	out, err := r.ask(ctx, "--version")
	if err != nil {
		return err
	}

	if !crunMaps(string(out)) {
		const format = "%s does not say that it can map volumes to users (crun 1.8.1, runc 1.2)"
		return fmt.Errorf(format, r.Program)
	}

	return nil
}

// hasUsers judges what the runtime says of itself.
func (r Runtime) hasUsers(f features.Features) error {
	switch {
	case f.Linux == nil || !slices.Contains(f.Linux.Namespaces, string(specs.UserNamespace)):
		return fmt.Errorf("%s has no user namespaces", r.Program)
	case f.Linux.MountExtensions == nil, f.Linux.MountExtensions.IDMap == nil,
		f.Linux.MountExtensions.IDMap.Enabled == nil, !*f.Linux.MountExtensions.IDMap.Enabled:
		return fmt.Errorf("%s cannot map volumes to users (runc can since 1.2)", r.Program)
	}
	return nil
}

// ask runs the runtime with one argument, and returns what it writes.
func (r Runtime) ask(ctx context.Context, argument string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, r.Program, argument)
	cmd.WaitDelay = time.Second
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}

	data, err := io.ReadAll(io.LimitReader(out, maxFeatures))

	// One that writes more does not go on.
	out.Close()
	if waited := cmd.Wait(); err == nil {
		err = waited
	}
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", r.Program, argument, err)
	}

	return data, nil
}

var crunVersion = regexp.MustCompile(`^crun version (\d+)\.(\d+)(?:\.(\d+))?`)

// crunMaps reports whether the output of --version is that of a crun that maps volumes in the direction that
// the specification wants: 1.8.1 or later.
func crunMaps(output string) bool {
	found := crunVersion.FindStringSubmatch(output)
	if found == nil {
		return false
	}

	version := make([]int, 3)
	for i := range version {
		// A patch that is not given is 0.
		version[i], _ = strconv.Atoi(found[i+1])
	}

	return slices.Compare(version, []int{1, 8, 1}) >= 0
}
