package archive

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestStreamThatWasCutIsRefused(t *testing.T) {
	stream := write(t, headerFor(Mount, 1<<30), makeTree(t))
	for at := 0; at < len(stream); at += 1 + len(stream)/25 {
		if err := extract(t.Context(), stream[:at], open(t, t.TempDir())); !errors.Is(err, ErrFormat) {
			t.Errorf("%d of %d bytes: %v", at, len(stream), err)
		}
	}
}

func TestStreamWhoseBytesHaveChangedIsRefused(t *testing.T) {
	stream := write(t, headerFor(Mount, 1<<30), makeTree(t))
	for at := 0; at < len(stream)-3*blockSize; at += 1 + len(stream)/25 {
		changed := bytes.Clone(stream)
		changed[at] ^= 0x40
		if err := extract(t.Context(), changed, open(t, t.TempDir())); err == nil {
			t.Errorf("byte %d of %d is another", at, len(stream))
		}
	}
}

func TestWhatFollowsTheEndIsRefused(t *testing.T) {
	stream := write(t, headerFor(Mount, 1<<30), makeTree(t))
	for _, more := range [][]byte{{1}, make([]byte, blockSize), stream} {
		err := extract(t.Context(), append(bytes.Clone(stream), more...), open(t, t.TempDir()))
		if !errors.Is(err, ErrFormat) {
			t.Errorf("%d bytes more: %v", len(more), err)
		}
	}
}

func TestHeadersThatCannotBeAreRefused(t *testing.T) {
	for name, change := range map[string]func(*Header){
		"version": func(h *Header) { h.Version = 2 },
		"id":      func(h *Header) { h.ID = "../../x" },
		"access":  func(h *Header) { h.Access = "both" },
		"size":    func(h *Header) { h.Size = -1 },
		"fstype":  func(h *Header) { h.FSType = "xfs,nouuid" },
	} {
		h := headerFor(Mount, 1<<30)
		h.Version = version
		change(&h)
		data, err := json.Marshal(h)
		must(t, err)
		stream := build(t, entry{header: tar.Header{Name: headerName}, data: string(data)})
		if _, err := NewReader(t.Context(), bytes.NewReader(stream)); !errors.Is(err, ErrFormat) {
			t.Errorf("%s: %v", name, err)
		}
	}

	large := entry{header: tar.Header{Name: headerName}, data: strings.Repeat(" ", maxHeader+1)}
	if _, err := NewReader(t.Context(), bytes.NewReader(build(t, large))); !errors.Is(err, ErrFormat) {
		t.Errorf("a large header: %v", err)
	}
}

// entry of an archive that somebody else has made.
type entry struct {
	header tar.Header
	data   string
}

// build makes an archive with whatever entries.
func build(t testing.TB, entries ...entry) []byte {
	t.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, e := range entries {
		h := e.header
		h.Size, h.Format = int64(len(e.data)), tar.FormatPAX
		if h.Typeflag == 0 {
			h.Typeflag = tar.TypeReg
		}
		h.Uid, h.Gid = os.Getuid(), os.Getgid()
		must(t, w.WriteHeader(&h))
		_, err := w.Write([]byte(e.data))
		must(t, err)
	}
	must(t, w.Close())
	return out.Bytes()
}

// after returns the entries of a whole archive, up to its end, with others in its middle.
func after(t testing.TB, access string, entries ...entry) []byte {
	t.Helper()
	h := headerFor(access, 1<<20)
	h.Version = version
	data, err := json.Marshal(h)
	must(t, err)
	first := entry{header: tar.Header{Name: headerName}, data: string(data)}
	return build(t, append([]entry{first}, entries...)...)
}

func file(name string) entry { return entry{header: tar.Header{Name: name, Mode: 0o600}, data: "data"} }

func TestNothingIsWrittenOutside(t *testing.T) {
	link := func(name, target string) entry {
		return entry{header: tar.Header{Name: name, Typeflag: tar.TypeSymlink, Linkname: target}}
	}
	hard := func(name, first string) entry {
		return entry{header: tar.Header{Name: name, Typeflag: tar.TypeLink, Linkname: first}}
	}
	dir := func(name string) entry {
		return entry{header: tar.Header{Name: name, Typeflag: tar.TypeDir, Mode: 0o777}}
	}

	for name, entries := range map[string][]entry{
		"up":                  {file("content/../victim")},
		"up later":            {file("content/a/../../victim")},
		"absolute":            {file("/victim")},
		"absolute below":      {file("content//victim")},
		"dot":                 {file("content/./victim")},
		"no content":          {file("victim")},
		"through a link":      {link("content/l", ".."), file("content/l/victim")},
		"deep through a link": {link("content/l", ".."), file("content/l/x/victim")},
		"over a link":         {link("content/l", "../victim"), file("content/l")},
		"directory of a link": {link("content/l", ".."), dir("content/l/")},
		"directory above":     {dir("content/../")},
		"hard link up":        {hard("content/h", "content/../secret")},
		"hard link absolute":  {hard("content/h", "/etc/passwd")},
		"hard link through":   {link("content/l", ".."), hard("content/h", "content/l/secret")},
		"twice":               {file("content/f"), file("content/f")},
		"through a file":      {file("content/f"), file("content/f/g")},
		"long":                {file("content/" + strings.Repeat("d/", 2100) + "f")},
		"header again":        {file(headerName)},
		"type":                {{header: tar.Header{Name: "content/t", Typeflag: tar.TypeCont}}},
	} {
		t.Run(name, func(t *testing.T) {
			outside := t.TempDir()
			to := filepath.Join(outside, "volume")
			secret := filepath.Join(outside, "secret")
			must(t, os.Mkdir(to, 0o700), os.WriteFile(secret, []byte("secret"), 0o600))
			before := describeShallow(t, outside)
			if err := extract(t.Context(), after(t, Mount, entries...), open(t, to)); err == nil {
				t.Error("it is taken")
			}
			if now := describeShallow(t, outside); now != before {
				t.Errorf("outside is %s, was %s", now, before)
			}
		})
	}
}

// describeShallow returns what is in a directory, without what is in "volume".
func describeShallow(t testing.TB, dir string) string {
	t.Helper()
	var text []string
	entries, err := os.ReadDir(dir)
	must(t, err)
	for _, e := range entries {
		var st unix.Stat_t
		must(t, unix.Lstat(filepath.Join(dir, e.Name()), &st))
		if e.Name() == "secret" {
			text = append(text, e.Name(), string(rune('0'+st.Nlink)))
		} else {
			text = append(text, e.Name())
		}
	}
	var st unix.Stat_t
	must(t, unix.Lstat(dir, &st))
	return strings.Join(append(text, os.FileMode(st.Mode).String()), " ")
}

func TestExtentsBelongToAFile(t *testing.T) {
	holey := func(name, size string) entry {
		records := map[string]string{sizeRecord: size}
		return entry{header: tar.Header{Name: name, PAXRecords: records}}
	}

	for name, c := range map[string]struct {
		access  string
		entries []entry
	}{
		"none":           {Mount, []entry{file("extents/0")}},
		"after another":  {Mount, []entry{holey("content/f", "9"), file("content/g"), file("extents/0")}},
		"beyond":         {Mount, []entry{holey("content/f", "9"), file("extents/6")}},
		"far beyond":     {Mount, []entry{holey("content/f", "9"), file("extents/9223372036854775807")}},
		"back":           {Mount, []entry{holey("content/f", "99"), file("extents/6"), file("extents/8")}},
		"negative":       {Mount, []entry{holey("content/f", "99"), file("extents/-1")}},
		"negative size":  {Mount, []entry{holey("content/f", "-1")}},
		"no size":        {Mount, []entry{holey("content/f", "x")}},
		"device, size":   {Block, []entry{holey("content", "9")}},
		"device, twice":  {Block, []entry{holey("content", "1048576"), holey("content", "1048576")}},
		"device, beyond": {Block, []entry{holey("content", "1048576"), file("extents/1048573")}},
		"device, file":   {Block, []entry{file("content/f")}},
		"device, none":   {Block, nil},
	} {
		to := t.TempDir()
		if c.access == Block {
			to = filepath.Join(to, "device")
			must(t, os.WriteFile(to, nil, 0o600), os.Truncate(to, 2<<20))
		}

		err := extract(t.Context(), after(t, c.access, c.entries...), open(t, to))
		if !errors.Is(err, ErrFormat) {
			t.Errorf("%s: %v", name, err)
		}
		if info, err := os.Stat(to); c.access == Block && (err != nil || info.Size() != 2<<20) {
			t.Errorf("%s: the device is %v, %v", name, info, err)
		}
	}
}

// What GNU tar calls a sparse file is made up while it is read: some hundred bytes would fill any volume.
func TestSparseFilesOfOthersAreRefused(t *testing.T) {
	var block [2 * blockSize]byte
	copy(block[:], "content/f")
	copy(block[100:], "0000600\x000000000\x000000000\x0000000000000\x0000000000000\x00")
	copy(block[257:], "ustar  \x00")
	block[156] = tar.TypeGNUSparse
	copy(block[483:], "77777777777\x00")
	sum := 8 * int(' ')
	for _, b := range block[:blockSize] {
		sum += int(b)
	}
	copy(block[148:], []byte{byte('0' + sum>>15&7), byte('0' + sum>>12&7), byte('0' + sum>>9&7),
		byte('0' + sum>>6&7), byte('0' + sum>>3&7), byte('0' + sum&7), 0, ' '})

	whole := after(t, Mount)
	stream := append(bytes.Clone(whole[:len(whole)-2*blockSize]), block[:]...)
	err := extract(t.Context(), stream, open(t, t.TempDir()))
	if !errors.Is(err, ErrFormat) {
		t.Error(err)
	}
}

func FuzzExtract(f *testing.F) {
	f.Add(write(f, headerFor(Mount, 1<<30), makeTree(f)))
	f.Add(after(f, Mount, file("content/a/b"), file("content/../c")))
	f.Add(after(f, Block, entry{header: tar.Header{
		Name:       contentName,
		PAXRecords: map[string]string{sizeRecord: "1048576"},
	}}, file("extents/4096")))

	f.Fuzz(func(t *testing.T, stream []byte) {
		outside := t.TempDir()
		to, device := filepath.Join(outside, "volume"), filepath.Join(outside, "device")
		must(t, os.Mkdir(to, 0o700), os.WriteFile(device, nil, 0o600), os.Truncate(device, 2<<20))
		before := describeShallow(t, outside)

		_ = extract(t.Context(), stream, open(t, to))
		if err := extract(t.Context(), stream, open(t, device)); err == nil {
			_ = os.Truncate(device, 2<<20)
		}
		if now := describeShallow(t, outside); now != before {
			t.Errorf("outside is %s, was %s", now, before)
		}
	})
}
