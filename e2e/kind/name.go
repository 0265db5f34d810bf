package kind

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"os"
	"strings"
)

// name is the name of a cluster. Those of its containers begin with it.
type name string

// controlPlane is the first node, worker the second, as kind names them.
func (n name) controlPlane() string { return string(n) + "-control-plane" }
func (n name) worker() string       { return string(n) + "-worker" }

// nodes are all of them.
func (n name) nodes() []string { return []string{n.controlPlane(), n.worker()} }

// registry is the container that serves images to the nodes.
func (n name) registry() string { return string(n) + "-registry" }

// name is different for clusters in different directories on the user's Docker.
func (c *Cluster) name() name {
	if c.Image == "" {
		return "trivet"
	}

	h := fnv.New32a()
	h.Write([]byte(c.Dir))
	return name(fmt.Sprintf("trivet-%08x", h.Sum32()))
}

// refuseOthers is an error where files or containers have the names of those that the cluster would have.
func (c *Cluster) refuseOthers(ctx context.Context) error {
	for _, file := range append([]string{"machines"}, removable...) {
		file = c.path(file)
		_, err := os.Lstat(file)
		if err == nil {
			return fmt.Errorf("%s is there, and not of a kind cluster: name another directory by --dir", file)
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}

	// A Docker of its own lies in the directory.
	if c.Image == "" {
		return nil
	}

	out, err := output(c.Command(ctx, "docker", "ps", "--all", "--format={{.Names}}"))
	if err != nil {
		return err
	}

	for container := range strings.FieldsSeq(out) {
		if strings.HasPrefix(container, string(c.name())+"-") {
			return fmt.Errorf("container %s is there, and %s has no record of it: "+
				"remove it, or name another directory by --dir", container, c.Dir)
		}
	}
	return nil
}
