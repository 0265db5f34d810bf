package part

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
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

	// prove is how long a process has to run before the part is there for good; "": as the part has it.
	prove string
}

func (i installer) String() string { return "installer of " + i.name + " on " + i.node }

func (i installer) daemonset() string { return "trivet-" + i.name + "-installer" }

// exchange is how long a node may take to be drained, changed, and changed back.
const exchange = 6 * time.Minute

// install returns when the node is in use with the part. It may be taken back for a while (isThere).
func (i installer) install(ctx context.Context) error {
	if err := i.apply(ctx); err != nil {
		return err
	}
	if err := i.label(ctx); err != nil {
		return err
	}
	return i.awaitUse(ctx)
}

// label says that the node is to have the part.
func (i installer) label(ctx context.Context) error {
	label := "trivet.dev/" + i.name + "="
	_, err := i.cluster.Kubectl(ctx, "", "label", "--overwrite", "node", i.node, label)
	return err
}

// awaitUse returns when the node is in use again, with the part on trial or for good.
func (i installer) awaitUse(ctx context.Context) error {
	return settleWithin(ctx, exchange, i.String(), func(ctx context.Context) error {
		now, err := i.look(ctx)
		if err == nil && (now.cordoned || !now.tries() && now.said == "") {
			err = errors.New("the node is not in use with it yet")
		}
		return err
	})
}

// await returns what the installer says when it is done.
func (i installer) await(ctx context.Context) (said string, err error) {
	err = settleWithin(ctx, exchange, i.String(), func(ctx context.Context) error {
		now, err := i.look(ctx)
		if err == nil && (now.cordoned || now.trial != "" || now.said == "") {
			err = errors.New("it is not done")
		}
		said = now.said
		return err
	})
	return said, err
}

// isThere returns what the installer says when the part is there for good; it is an error if it is not.
func (i installer) isThere(ctx context.Context) (string, error) {
	said, err := i.await(ctx)
	if err == nil && strings.Contains(said, "was taken back") {
		err = fmt.Errorf("%s: %s", i, said)
	}
	return said, err
}

// apply applies the directory, with the flag where it has one.
func (i installer) apply(ctx context.Context) error {
	dir := filepath.Join(i.files.Deploy, i.name)
	if i.prove == "" {
		_, err := i.cluster.Kubectl(ctx, "", "apply", "-k", dir)
		return err
	}

	text, err := i.cluster.Kubectl(ctx, "", "kustomize", dir)
	if err != nil {
		return err
	}
	if !partFlag.MatchString(text) {
		return fmt.Errorf("%s: no line has --part", dir)
	}
	text = partFlag.ReplaceAllString(text, "$0\n$1- --prove="+i.prove)
	_, err = i.cluster.Kubectl(ctx, text, "apply", "-f", "-")
	return err
}

var partFlag = regexp.MustCompile(`(?m)^( *)- --part=.*$`)

// state is what the node's annotations say.
type state struct {
	// cordoned says that an installer has the node out of use.
	cordoned bool

	// trial is what may be taken back; empty: nothing.
	trial string

	// said is how the last exchange of the part ended; empty: none has.
	said string
}

// out is what an installer calls the state in which a node has nothing of the part.
const out = "what was there before"

// tries reports whether the part is on trial, leaves whether the node is without it, for as long.
func (s state) tries() bool  { return s.trial != "" && s.trial != out }
func (s state) leaves() bool { return s.trial == out }

func (i installer) look(ctx context.Context) (state, error) {
	path := fmt.Sprintf(`jsonpath={.metadata.annotations.installer\.trivet\.dev/cordoned}|`+
		`{.metadata.annotations.installer\.trivet\.dev/%[1]s-trial}|`+
		`{.metadata.annotations.installer\.trivet\.dev/%[1]s}`, i.name)
	seen, err := i.cluster.Kubectl(ctx, "", "get", "node", i.node, "-o", path)
	fields := append(strings.SplitN(seen, "|", 3), "", "")
	now := state{cordoned: fields[0] != "", said: fields[2]}
	if err != nil || fields[1] == "" {
		return now, err
	}

	var trial struct{ State string }
	if err := json.Unmarshal([]byte(fields[1]), &trial); err != nil || trial.State == "" {
		return now, fmt.Errorf("%s: its trial is %q", i, fields[1])
	}
	now.trial = trial.State
	return now, nil
}

// remove returns when the node is in use without the part. That may be taken back for a while (removed).
func (i installer) remove(ctx context.Context) error {
	if _, err := i.cluster.Kubectl(ctx, "", "label", "node", i.node, "trivet.dev/"+i.name+"-"); err != nil {
		return err
	}
	return settleWithin(ctx, exchange, i.String(), func(ctx context.Context) error {
		now, err := i.look(ctx)
		if err == nil && (now.cordoned || !now.leaves() && (now.tries() || now.said != "")) {
			err = fmt.Errorf("the node is not in use without it yet: %s", now.said)
		}
		return err
	})
}

// removed returns when the node has nothing of the part any more. The last one takes the DaemonSet away.
func (i installer) removed(ctx context.Context) error {
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
