package kind

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/trivet-node/trivet/e2e/kind/smoke"
)

// registry serves images to the nodes from a container, as the documents of kind do it: in kind's network,
// where names of containers are names of hosts.
type registry struct{ cluster *Cluster }

// name is the name of the container.
func (r registry) name() string { return r.cluster.name().registry() }

// image is the name of an image without a file: the program of the registry is mounted.
func (r registry) image() string { return r.name() + "/empty" }

// network is kind's, which is made as kind makes it (subnet included) where kind has not been yet.
var network = []string{
	"--driver=bridge",
	"--opt=com.docker.network.bridge.enable_ip_masquerade=true",
	"--ipv6",
	"--subnet=fc00:f853:ccd:e793::/64",
	"kind",
}

// mirrored are the registries for which it stands, each with its address.
var mirrored = map[string]string{
	"docker.io":       "https://registry-1.docker.io",
	"registry.k8s.io": "https://registry.k8s.io",
}

// describe writes what leads nodes to the registry (hosts.toml): for the registries for which it stands, and
// for the name that it has on the host, where Docker speaks plain HTTP with it.
func (r registry) describe() error {
	const form = "[host.\"http://%s:5000\"]\n  capabilities = [\"pull\", \"resolve\"]\n"
	hosts := fmt.Sprintf(form, r.name())
	files := map[string]string{smoke.Registry: hosts}
	for name, server := range mirrored {
		files[name] = fmt.Sprintf("server = %q\n\n", server) + hosts
	}

	for name, text := range files {
		dir := r.cluster.path("certs.d", name)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, "hosts.toml"), []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// start starts the registry again, and writes what describes it to nodes.
func (r registry) start(ctx context.Context) error {
	c := r.cluster
	if err := r.describe(); err != nil {
		return err
	}

	if c.Command(ctx, "docker", "network", "inspect", "kind").Run() != nil {
		create := c.Command(ctx, "docker", append([]string{"network", "create"}, network...)...)
		if _, err := output(create); err != nil {
			return err
		}
	}

	if err := r.stop(ctx); err != nil {
		return err
	}

	if c.Command(ctx, "docker", "image", "inspect", r.image()).Run() != nil {
		// An archive without files is two blocks of zeros.
		load := c.Command(ctx, "docker", "import", "-", r.image())
		load.Stdin = strings.NewReader(strings.Repeat("\x00", 1024))
		if _, err := output(load); err != nil {
			return err
		}
	}

	run := []string{"run", "--detach", "--name=" + r.name(), "--network=kind", "--restart=always",
		"--volume=" + c.Images + ":/images:ro",
		"--volume=" + filepath.Join(c.Ours, "trivet-images") + ":/trivet-images:ro",
	}

	// The ports of a user's host are the user's.
	if c.Image == "" {
		run = append(run, "--publish=127.0.0.1:"+smoke.RegistryPort+":5000")
	}

	run = append(run, r.image(), "/trivet-images", "serve", "--dir=/images", "--listen=:5000")
	_, err := output(c.Command(ctx, "docker", run...))
	return err
}

func (r registry) stop(ctx context.Context) error {
	_, err := output(r.cluster.Command(ctx, "docker", "rm", "--force", "--volumes", r.name()))
	if err != nil && strings.Contains(err.Error(), "No such container") {
		return nil
	}
	return err
}

// remove stops the registry and removes its image. The network stays, as kind leaves it.
func (r registry) remove(ctx context.Context) error {
	if err := r.stop(ctx); err != nil {
		return err
	}

	_, err := output(r.cluster.Command(ctx, "docker", "image", "rm", r.image()))
	if err != nil && strings.Contains(err.Error(), "No such image") {
		return nil
	}
	return err
}
