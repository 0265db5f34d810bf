package addresses

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/types/create"

	"github.com/trivet-node/trivet/cni/conf"
	"github.com/trivet-node/trivet/cni/plugin/call"
	"github.com/trivet-node/trivet/internal/undo"
)

// Delegate is an IPAM plugin that this program does not have, such as dhcp: the program of its name in
// CNI_PATH gets the call as it came. The CNI library's package for this brings an HTTP client with it,
// which every start of the program would pay for.
type Delegate struct{ Type string }

// Reserve has the other plugin allocate addresses. It is called to release them also when it fails: it may
// have allocated some before.
func (d Delegate) Reserve(c *call.Call, back *undo.Stack) (a Allocation, err error) {
	back.Push("release addresses", func(ctx context.Context) error {
		_, err := d.run(ctx, "DEL", c)
		return err
	})

	out, err := d.run(context.Background(), "ADD", c)
	if err != nil {
		return a, err
	}

	var answer *types100.Result
	version, err := create.DecodeVersion(out)
	if err == nil {
		answer, err = call.ParseResult(version, out)
	}
	if err == nil {
		a, err = fromResult(answer)
	}
	if err != nil {
		return a, fmt.Errorf("ipam plugin %s: %w", d.Type, err)
	}

	return a, nil
}

// Check has the other plugin look at the addresses.
func (d Delegate) Check(c *call.Call) error { return d.ask("CHECK", c) }

// Status asks the other plugin whether it can allocate addresses.
func (d Delegate) Status(c *call.Call) error { return d.ask("STATUS", c) }

// Del has the other plugin release the addresses. One that is not there cannot be asked, and DEL takes
// apart the rest.
func (d Delegate) Del(c *call.Call) error { return d.askIfThere("DEL", c) }

// GC has the other plugin release what attachments hold that the runtime does not have.
func (d Delegate) GC(c *call.Call) error { return d.askIfThere("GC", c) }

func (d Delegate) ask(verb string, c *call.Call) error {
	_, err := d.run(context.Background(), verb, c)
	return err
}

func (d Delegate) askIfThere(verb string, c *call.Call) error {
	if _, err := d.find(); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return d.ask(verb, c)
}

// find returns the path of the plugin's program: the first in CNI_PATH that has its name.
func (d Delegate) find() (string, error) {
	if d.Type != filepath.Base(d.Type) {
		return "", fmt.Errorf("%w: ipam type %q is not the name of a program", conf.ErrInvalid, d.Type)
	}

	path := os.Getenv("CNI_PATH")
	for _, dir := range filepath.SplitList(path) {
		file := filepath.Join(dir, d.Type)
		if info, err := os.Stat(file); err == nil && info.Mode().IsRegular() {
			return file, nil
		}
	}

	return "", fmt.Errorf("ipam plugin %s in CNI_PATH %s: %w", d.Type, path, os.ErrNotExist)
}

// run runs the plugin with the call's environment and configuration, and returns what it prints. Its error
// has the plugin's own code.
func (d Delegate) run(ctx context.Context, verb string, c *call.Call) ([]byte, error) {
	path, err := d.find()
	if err != nil {
		return nil, err
	}

	var out bytes.Buffer
	cmd := exec.CommandContext(ctx, path)
	cmd.Env = append(os.Environ(), "CNI_COMMAND="+verb)
	cmd.Stdin = bytes.NewReader(c.Stdin)
	cmd.Stdout = &out
	cmd.Stderr = os.Stderr
	err = cmd.Run()
	if err == nil {
		return out.Bytes(), nil
	}

	// What it prints says more than how it ended, if it is what CNI has it print.
	failure := &types.Error{}
	if json.Unmarshal(out.Bytes(), failure) == nil && failure.Msg != "" {
		return nil, fmt.Errorf("ipam plugin %s: %w", d.Type, failure)
	}

	return nil, fmt.Errorf("ipam plugin %s: %w: %s", d.Type, err, strings.TrimSpace(out.String()))
}
