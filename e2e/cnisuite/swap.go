package cnisuite

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/trivet-node/trivet/internal/namespace"
)

// Swap is one container that one program adds, and the other one checks and deletes.
type Swap struct {
	// Adds and Deletes are the directories of the two programs, each with the names of the plugins.
	Adds, Deletes string
	// Work is a directory for what the plugins write.
	Work string
}

// Run swaps each network of the corpus, on a host of its own.
func (s Swap) Run(ctx context.Context) []Outcome {
	// What is left in /run/cni is looked for, which all of them share.
	return each(corpus, 1, func(n network, dir string, o *Outcome) error { return s.swap(ctx, n, dir, o) })
}

// swap adds, checks and deletes the container of a network.
func (s Swap) swap(ctx context.Context, n network, name string, o *Outcome) (err error) {
	h, err := newHost(n, filepath.Join(s.Work, name))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, h.close()) }()

	adds, deletes := h.plugins(s.Adds), h.plugins(s.Deletes)
	return inside(h.netns, func() error {
		if _, err := h.add(ctx, adds); err != nil {
			return err
		}

		own := h.check(ctx, n, adds)
		other := h.check(ctx, n, deletes)
		if err := deletes.DelNetworkList(ctx, h.list, h.runtime); err != nil {
			return fmt.Errorf("DEL: %w", err)
		}

		// What the one that added keeps for itself outside of the directory goes by its own DEL.
		o.Left = remains(h.dir)
		return errors.Join(own, other, adds.DelNetworkList(ctx, h.list, h.runtime))
	})
}

// inside calls f in a network namespace.
func inside(path string, f func() error) error { return namespace.Do(f, path) }

// ofPod matches what is a single container's: its ID, its addresses, names of chains with a hash, its
// interfaces.
var ofPod = regexp.MustCompile(container +
	`|10\.85\.0\.[2-9]|fd85::[2-9]|CNI-(DN-)?[0-9a-f]{20}|veth[0-9a-f]|bwp`)

// remains returns the lines that are a container's, of all that plugins write.
func remains(dir string) (left []string) {
	for _, command := range [][]string{
		{"ip", "-o", "link"},
		{"ip", "route"},
		{"nft", "list", "ruleset"},
		{"iptables-save"},
		{"ip6tables-save"},
		{"find", filepath.Join(dir, "data"), "/run/cni", "-type", "f", "-name", "*[0-9a-f]*"},
	} {
		// A program that is missing has nothing to show.
		out, _ := exec.Command(command[0], command[1:]...).Output()
		for line := range strings.Lines(string(out)) {
			if ofPod.MatchString(line) {
				left = append(left, command[0]+": "+strings.TrimSpace(line))
			}
		}
	}
	return left
}

func run(name string, arguments ...string) error {
	out, err := exec.Command(name, arguments...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s %q: %w: %s", name, arguments, err, out)
	}
	return nil
}
