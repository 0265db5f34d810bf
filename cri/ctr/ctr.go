// Package ctr reads the command lines of containerd's ctr and containerd that kind calls on a node, so that
// "kind load" works where trivet-cri is called by those names. It says what is asked for and does nothing
// itself. Every other command line is refused.
package ctr

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"slices"
	"strings"
)

// Call is what a command line asks for: an Import, a Tag or a List.
type Call any

// Import asks for the images of an archive.
type Import struct {
	// File is the archive's name; "-" is standard input.
	File string

	// Platform is the one whose images are wanted; "" is the node's. trivet-cri keeps one platform, so all of
	// them, for which kind asks, is the node's, too.
	Platform string

	Pinned bool
}

// Tag asks for further names of an image.
type Tag struct {
	Image string
	Names []string

	// Force says that a name may be taken from another image.
	Force bool
}

// List asks for all images.
type List struct {
	// Quiet says that only names are wanted.
	Quiet bool
}

// namespace is that of Kubernetes' images, the only one that trivet-cri has.
const namespace = "k8s.io"

// pinned is the label by which containerd keeps images from garbage collection.
const pinned = "io.cri-containerd.pinned=pinned"

// served ends what is said of a command line that is refused.
const served = "this ctr is trivet-cri's and serves what kind calls: " +
	"ctr -n k8s.io images import, tag, list; trivet-cri images does more"

// Parse reads the command line of ctr, without its own name. inherited is the namespace that the environment
// names (CONTAINERD_NAMESPACE); "" is ctr's default one.
func Parse(args []string, inherited string) (Call, error) {
	call, err := parse(args, inherited)
	if errors.Is(err, flag.ErrHelp) {
		return nil, errors.New(served)
	}
	if err != nil {
		return nil, fmt.Errorf("%w; %s", err, served)
	}

	return call, nil
}

func parse(args []string, inherited string) (Call, error) {
	global := flags()
	space := global.String("namespace", inherited, "")
	global.StringVar(space, "n", inherited, "")
	if err := global.Parse(args); err != nil {
		return nil, err
	}

	noun, rest := next(global.Args())
	verb, rest := next(rest)
	read := verbs[verb]
	if !slices.Contains([]string{"images", "image", "i"}, noun) || read == nil {
		return nil, fmt.Errorf("%.100q is not served", strings.TrimSpace(noun+" "+verb))
	}
	if *space != namespace {
		return nil, fmt.Errorf("there are no images in the namespace %.100q", *space)
	}

	call, err := read(rest)
	if err != nil {
		return nil, fmt.Errorf("images %s: %w", verb, err)
	}

	return call, nil
}

// verbs are what can be asked of images. Each reads the arguments after it.
var verbs = map[string]func([]string) (Call, error){
	"import": parseImport,
	"tag":    parseTag,
	"list":   parseList,
	"ls":     parseList,
}

// flags returns a set of flags that says nothing by itself.
func flags() *flag.FlagSet {
	fs := flag.NewFlagSet("", flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	return fs
}

// next returns the first argument, "" if there is none, and those after it.
func next(args []string) (first string, rest []string) {
	if len(args) == 0 {
		return "", nil
	}
	return args[0], args[1:]
}

func parseImport(args []string) (Call, error) {
	var call Import
	fs := flags()
	fs.StringVar(&call.Platform, "platform", "", "")
	fs.Func("label", "", func(label string) error {
		call.Pinned = label == pinned
		if !call.Pinned {
			return errors.New("only " + pinned + " has a meaning here")
		}
		return nil
	})

	// What these ask for is so in any case: images are unpacked, by the one way that there is, and those
	// without a name are kept by their IDs.
	for _, name := range []string{"all-platforms", "digests", "no-unpack"} {
		fs.Bool(name, false, "")
	}

	fs.String("snapshotter", "", "")

	if err := fs.Parse(args); err != nil {
		return nil, err
	}
	if fs.NArg() != 1 {
		return nil, fmt.Errorf("want one archive, not %d", fs.NArg())
	}

	call.File = fs.Arg(0)
	return call, nil
}

func parseTag(args []string) (Call, error) {
	var call Tag
	fs := flags()
	fs.BoolVar(&call.Force, "force", false, "")
	if err := fs.Parse(args); err != nil {
		return nil, err
	}
	if fs.NArg() < 2 {
		return nil, errors.New("want an image and a further name")
	}

	call.Image = fs.Arg(0)
	call.Names = fs.Args()[1:]
	return call, nil
}

func parseList(args []string) (Call, error) {
	var call List
	fs := flags()
	fs.BoolVar(&call.Quiet, "quiet", false, "")
	fs.BoolVar(&call.Quiet, "q", false, "")
	if err := fs.Parse(args); err != nil {
		return nil, err
	}
	if fs.NArg() > 0 {
		return nil, errors.New("filters are not served")
	}

	return call, nil
}
