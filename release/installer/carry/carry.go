// Package carry brings images from one container runtime of a node to another, by the programs that each has
// for archives: an image may be there that no registry has, as by kind load.
package carry

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"time"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/trivet-node/trivet/internal/socket"
	"github.com/trivet-node/trivet/release/installer/pods"
)

// Limits of a call, and of all together: what is not there after that is pulled.
const (
	oneLimit = time.Minute
	allLimit = 2 * time.Minute
)

// Carrier brings images.
type Carrier struct {
	From, To pods.Runtime

	// Ours is the endpoint of trivet-cri, and Program its program.
	Ours    string
	Program string

	// Root is where the machine's files are; empty: /.
	Root string

	Log *slog.Logger
}

// Bring brings those of the images that the one runtime has and the other does not. That one does not come is
// no reason to stop: it may be pulled.
func (c Carrier) Bring(ctx context.Context, images []string) {
	ctx, cancel := context.WithTimeout(ctx, allLimit)
	defer cancel()

	for _, image := range images {
		if ctx.Err() != nil {
			c.Log.Warn("images are left to be pulled", "err", context.Cause(ctx))
			return
		}
		if err := c.bring(ctx, image); err != nil {
			c.Log.Warn("image is left to be pulled", "image", image, "err", err)
		}
	}
}

func (c Carrier) bring(ctx context.Context, image string) error {
	ctx, cancel := context.WithTimeout(ctx, oneLimit)
	defer cancel()

	there, err := status(ctx, c.To, image)
	if err != nil || there != nil {
		return err
	}
	here, err := status(ctx, c.From, image)
	if err != nil || here == nil {
		return err
	}
	if len(here.RepoTags) == 0 {
		// It was pulled by its digest, so a registry has it.
		return nil
	}

	return c.copy(ctx, here.RepoTags[0])
}

// status is an image, nil where there is none.
func status(ctx context.Context, r pods.Runtime, image string) (*cri.Image, error) {
	conn, err := socket.Dial(r.Socket())
	if err != nil {
		return nil, err
	}
	defer conn.Close()

	request := &cri.ImageStatusRequest{Image: &cri.ImageSpec{Image: image}}
	answer, err := cri.NewImageServiceClient(conn).ImageStatus(ctx, request)
	return answer.GetImage(), err
}

// copy copies an image by its full name.
func (c Carrier) copy(ctx context.Context, name string) error {
	from, err := c.command(ctx, c.From, "export", name)
	if err != nil {
		return err
	}
	to, err := c.command(ctx, c.To, "import", "")
	if err != nil {
		return err
	}

	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	from.Stdout, to.Stdin = w, r

	var said [2]strings.Builder
	from.Stderr, to.Stderr = &said[0], &said[1]
	begun := errors.Join(from.Start(), to.Start())
	// Each has its own copy.
	closed := errors.Join(r.Close(), w.Close())

	var failed error
	for i, cmd := range []*exec.Cmd{from, to} {
		if cmd.Process == nil {
			continue
		}
		if err := cmd.Wait(); err != nil {
			// Warnings come before.
			lines := strings.Split(strings.TrimSpace(said[i].String()), "\n")
			text := lines[len(lines)-1]
			failed = errors.Join(failed, fmt.Errorf("%s: %w: %s", cmd.Path, err, text))
		}
	}
	return errors.Join(begun, closed, failed)
}

// ctrs are where containerd's client may be. The directory that comes first in a PATH has one of trivet's.
var ctrs = []string{"/usr/local/bin/ctr", "/usr/bin/ctr", "/bin/ctr", "/opt/bin/ctr"}

// command exports an image to its output, or imports what its input has.
func (c Carrier) command(ctx context.Context, r pods.Runtime, verb, name string) (*exec.Cmd, error) {
	args := []string{c.Program, "images", verb}
	if r.Endpoint != c.Ours {
		ctr := ""
		for _, path := range ctrs {
			if _, err := os.Stat(c.Root + path); err == nil {
				ctr = c.Root + path
				break
			}
		}
		if ctr == "" {
			return nil, errors.New("the other runtime has no ctr")
		}

		args = []string{ctr, "--address=" + r.Socket(), "--namespace=k8s.io", "images", verb, "-"}
	}
	if name != "" {
		args = append(args, name)
	}

	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.WaitDelay = time.Second
	return cmd, nil
}
