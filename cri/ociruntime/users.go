package ociruntime

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os/exec"
	"slices"
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

// CheckUsers returns an error if the runtime says that it has no user namespaces. One that says nothing has
// them: they are in the first version of the OCI runtime specification, the features command since 1.1.
func (r Runtime) CheckUsers(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, featuresLimit)
	defer cancel()

	out, err := r.ask(ctx, "features")
	if err != nil {
		return nil
	}

	var f features.Features
	if err := json.Unmarshal(out, &f); err != nil {
		return fmt.Errorf("%s features: %w", r.Program, err)
	}
	if f.Linux == nil || !slices.Contains(f.Linux.Namespaces, string(specs.UserNamespace)) {
		return fmt.Errorf("%s has no user namespaces", r.Program)
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
