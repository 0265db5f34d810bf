package part

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"time"
)

// installer puts a part on a node by the DaemonSet of its directory in deploy and a label, as its README
// says.
type installer struct {
	cluster Cluster
	files   Files
	node    string

	// name is the part's directory.
	name string
}

func (i installer) String() string { return "installer of " + i.name + " on " + i.node }

func (i installer) daemonset() string { return "trivet-" + i.name + "-installer" }

// exchange is how long a node may take to be drained, changed, and changed back.
const exchange = 6 * time.Minute

// install returns what the installer says of the node when it is done with it.
func (i installer) install(ctx context.Context) (string, error) {
	if err := i.apply(ctx); err != nil {
		return "", err
	}
	if err := i.label(ctx); err != nil {
		return "", err
	}
	return i.await(ctx)
}

// label says that the node is to have the part.
func (i installer) label(ctx context.Context) error {
	label := "trivet.dev/" + i.name + "="
	_, err := i.cluster.Kubectl(ctx, "", "label", "--overwrite", "node", i.node, label)
	return err
}

// await returns what the installer says when it is done.
func (i installer) await(ctx context.Context) (said string, err error) {
	err = settleWithin(ctx, exchange, i.String(), func(ctx context.Context) (err error) {
		if said, err = i.result(ctx); err == nil && said == "" {
			err = fmt.Errorf("it is not done")
		}
		return err
	})
	return said, err
}

// apply applies the directory.
func (i installer) apply(ctx context.Context) error {
	_, err := i.cluster.Kubectl(ctx, "", "apply", "-k", filepath.Join(i.files.Deploy, i.name))
	return err
}

// result is what the installer says of its last exchange; empty while it has not ended.
func (i installer) result(ctx context.Context) (string, error) {
	path := fmt.Sprintf(`jsonpath={.metadata.annotations.installer\.trivet\.dev/cordoned}|`+
		`{.metadata.annotations.installer\.trivet\.dev/%s}`, i.name)
	out, err := i.cluster.Kubectl(ctx, "", "get", "node", i.node, "-o", path)
	if busy, said, _ := strings.Cut(out, "|"); busy == "" {
		return said, err
	}
	return "", err
}

// remove returns when the node has nothing of the part any more. The last one takes the DaemonSet away.
func (i installer) remove(ctx context.Context) error {
	if _, err := i.cluster.Kubectl(ctx, "", "label", "node", i.node, "trivet.dev/"+i.name+"-"); err != nil {
		return err
	}

	err := settleWithin(ctx, exchange, i.String(), func(ctx context.Context) error {
		path := fmt.Sprintf(`jsonpath={.metadata.labels.installer\.trivet\.dev/%[1]s}`+
			`{.metadata.annotations.installer\.trivet\.dev/%[1]s}`, i.name)
		out, err := i.cluster.Kubectl(ctx, "", "get", "node", i.node, "-o", path)
		if err == nil && out != "" {
			err = fmt.Errorf("it is not done: %s", out)
		}
		return err
	})
	if err != nil {
		return err
	}

	mark := "installer.trivet.dev/" + i.name
	left, err := i.cluster.Kubectl(ctx, "", "get", "nodes", "-o", "name", "-l", mark)
	if err != nil || left != "" {
		return err
	}
	_, err = i.cluster.Kubectl(ctx, "", "delete", "--ignore-not-found", "-k",
		filepath.Join(i.files.Deploy, i.name))
	if err != nil {
		return err
	}
	return gone(ctx, i.cluster, i.daemonset())
}
