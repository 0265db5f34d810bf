package nodeimage

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"path/filepath"
)

// baseSpec is the OCI configuration from which containerd on a node of kind starts: the default one without
// limits of resources, and with the hook that hides the machine's identity.
func (b *Builder) baseSpec(ctx context.Context) ([]byte, error) {
	out, err := exec.CommandContext(ctx, filepath.Join(b.Bin, "ctr"), "oci", "spec").Output()
	if err != nil {
		return nil, fmt.Errorf("ctr oci spec: %w", err)
	}
	return withHook(out)
}

func withHook(spec []byte) ([]byte, error) {
	// Numbers stay as they are written: some are larger than a float64 can tell apart.
	decoder := json.NewDecoder(bytes.NewReader(spec))
	decoder.UseNumber()

	var object map[string]any
	if err := decoder.Decode(&object); err != nil {
		return nil, fmt.Errorf("OCI configuration of containerd: %w", err)
	}

	process, ok := object["process"].(map[string]any)
	if !ok {
		return nil, fmt.Errorf("OCI configuration of containerd has no process")
	}

	delete(process, "rlimits")
	hook := map[string]any{"path": "/kind/bin/mount-product-files.sh"}
	object["hooks"] = map[string]any{"createContainer": []any{hook}}
	return json.Marshal(object)
}

// moduleDir is where a module lies, from what `go mod download -json` prints.
func moduleDir(out []byte) (string, error) {
	var module struct{ Dir string }
	if err := json.Unmarshal(out, &module); err != nil {
		return "", fmt.Errorf("go mod download: %w", err)
	}
	return module.Dir, nil
}
