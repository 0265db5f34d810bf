package layer

import (
	"archive/tar"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/internal/testenv"
)

// model is one tree into which all layers are unpacked, one entry after the other: what they must look like
// together.
type model struct {
	nodes  map[string]node
	layer  int
	passed map[string]bool // by this layer: links on the way, targets of hard links
}

type node struct {
	kind  byte
	text  string // content, or target of a link
	mode  int64
	layer int
	hard  bool // made by a hard link
}

// errUnsure is returned for what no real layer does, where two results would be right.
var errUnsure = errors.New("unsure")

func (m *model) walk(name string, create bool) (string, error) {
	at, way := "", stepsOf(name)
	for step := way.next(); step != ""; step = way.next() {
		if step == ".." {
			at = parentOf(at)
			continue
		}

		next := join(at, step)
		n, there := m.nodes[next]
		switch {
		case !there && !create, there && n.kind == tar.TypeReg:
			return "", errUnsure
		case !there:
			m.nodes[next] = node{kind: tar.TypeDir, mode: 0o755, layer: m.layer}
		case n.kind == tar.TypeSymlink:
			m.passed[next] = true
			if n.hard && n.layer == m.layer || way.follow(n.text) != nil {
				return "", errUnsure
			}
			if path.IsAbs(n.text) {
				at = ""
			}

			continue
		}

		at = next
	}

	return at, nil
}

func (m *model) apply(e entry) error {
	name := path.Clean("/" + e.Name)[1:]
	dir, err := m.walk(parentOf(name), true)
	if err != nil {
		return err
	}

	if hidden, ok := strings.CutPrefix(path.Base(name), whiteout); ok {
		m.passed[dir] = true
		m.remove(join(dir, hidden))
		return nil
	}

	at := join(dir, path.Base(name))
	n := node{
		kind:  e.Typeflag,
		text:  e.body,
		mode:  e.Mode,
		layer: m.layer,
	}

	switch e.Typeflag {
	case tar.TypeSymlink:
		n.text = e.Linkname
	case tar.TypeLink:
		in, err := m.walk(parentOf(e.Linkname), false)
		if err != nil {
			return err
		}

		target, ok := m.nodes[join(in, path.Base(e.Linkname))]
		if !ok || target.kind == tar.TypeDir || join(in, path.Base(e.Linkname)) == at {
			return errUnsure
		}

		n.kind, n.text, n.mode, n.hard = target.kind, target.text, target.mode, true
		m.passed[join(in, path.Base(e.Linkname))] = true
	}

	if old, there := m.nodes[at]; there && old.kind == tar.TypeDir && n.kind == tar.TypeDir {
		m.nodes[at] = n
		return nil
	}

	for other, o := range m.nodes {
		if within := other == at || strings.HasPrefix(other, at+"/"); within && o.layer == m.layer {
			return errUnsure
		}
	}

	for used := range m.passed {
		if used == at || strings.HasPrefix(used, at+"/") {
			return errUnsure
		}
	}

	m.remove(at)
	m.nodes[at] = n
	return nil
}

func (m *model) remove(at string) {
	maps.DeleteFunc(m.nodes, func(name string, _ node) bool {
		return name == at || strings.HasPrefix(name, at+"/")
	})
}

func (m *model) list() (list []string) {
	for name, n := range m.nodes {
		list = append(list, describe(name, n))
	}
	slices.Sort(list)
	return list
}

func describe(name string, n node) string {
	if n.kind == tar.TypeDir {
		return fmt.Sprintf("%s/ %o", name, n.mode)
	}
	return fmt.Sprintf("%s %c %s", name, n.kind, n.text)
}

// overlaid is what overlayfs shows of layers.
func overlaid(t *testing.T, dirs []string) []string {
	t.Helper()
	m := model{nodes: make(map[string]node)}
	for _, dir := range dirs {
		err := filepath.WalkDir(dir, func(p string, _ fs.DirEntry, err error) error {
			name := strings.TrimPrefix(strings.TrimPrefix(p, dir), "/")
			var st unix.Stat_t
			if err == nil {
				err = unix.Lstat(p, &st)
			}
			if err != nil || name == "" {
				return err
			}

			n := node{kind: tar.TypeReg, mode: int64(st.Mode & 0o7777)}
			switch st.Mode & unix.S_IFMT {
			case unix.S_IFDIR:
				n.kind = tar.TypeDir
				size, _ := unix.Lgetxattr(p, "trusted.overlay.opaque", make([]byte, 1))
				if old, there := m.nodes[name]; !there || old.kind != tar.TypeDir || size == 1 {
					m.remove(name)
				}

			case unix.S_IFCHR:
				m.remove(name)
				return nil
			case unix.S_IFLNK:
				n.kind = tar.TypeSymlink
				n.text, err = os.Readlink(p)
				m.remove(name)

			default:
				var data []byte
				data, err = os.ReadFile(p)
				n.text = string(data)
				m.remove(name)
			}

			m.nodes[name] = n
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}

	return m.list()
}

// someName is one of few, so that entries meet.
func someName(r *rand.Rand) string {
	name := string("abc"[r.IntN(3)])
	for r.IntN(2) == 0 && len(name) < 6 {
		name += "/" + string("abc"[r.IntN(3)])
	}
	return name
}

func someEntry(r *rand.Rand, n int) entry {
	name := someName(r)
	switch r.IntN(5) {
	case 0:
		return dir(name, []int64{0o700, 0o711}[r.IntN(2)])
	case 1:
		return symlink(name, []string{"", "/", "../", "./"}[r.IntN(4)]+someName(r))
	case 2:
		return linked(tar.TypeLink, name, someName(r))
	}
	return file(name, fmt.Sprint(n))
}

// Layers that are unpacked beside each other look, one over the other, as if each had been unpacked onto
// those below.
func TestLayersAreAsIfUnpackedOntoEachOther(t *testing.T) {
	testenv.Root(t)
	base := testenv.MemoryDir(t)
	compared := 0
	for seed := range uint64(12_000) {
		r := rand.New(rand.NewPCG(seed, 1))
		m, layers := model{nodes: make(map[string]node)}, make([][]entry, 2+r.IntN(2))
		sure := true
		for i := range layers {
			m.layer, m.passed = i, make(map[string]bool)
			if i > 0 && r.IntN(4) == 0 {
				name := someName(r)
				layers[i] = append(layers[i], file(join(parentOf(name), whiteout+path.Base(name)), ""))
			}

			for n := range 1 + r.IntN(5) {
				layers[i] = append(layers[i], someEntry(r, n))
			}

			for _, e := range layers[i] {
				sure = sure && m.apply(e) == nil
			}
		}

		if !sure {
			continue
		}

		compared++
		compareWithModel(t, filepath.Join(base, fmt.Sprint(seed)), layers, m.list())
	}

	if compared < 500 {
		t.Errorf("only %d stacks of layers were compared", compared)
	}
}

func compareWithModel(t *testing.T, base string, layers [][]entry, want []string) {
	t.Helper()
	if err := os.Mkdir(base, 0o700); err != nil {
		t.Fatal(err)
	}

	var dirs []string
	text := ""
	for i, entries := range layers {
		for _, e := range entries {
			text += fmt.Sprintf("%d: %c %s -> %s %o\n", i, e.Typeflag, e.Name, e.Linkname, e.Mode)
		}

		dir := filepath.Join(base, fmt.Sprint(i))
		result, err := unpackTo(t, dir, archive(t, entries...))
		if err == nil {
			err = Complete(t.Context(), dir, dirs, &result)
		}

		if err != nil {
			t.Errorf("%v\n%s", err, text)
			return
		}

		dirs = append(dirs, dir)
	}

	if diff := cmp.Diff(want, overlaid(t, dirs)); diff != "" {
		t.Errorf("(-want +got):\n%s\n%s", diff, text)
	}
}
