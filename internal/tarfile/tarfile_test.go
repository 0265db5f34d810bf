package tarfile

import (
	"archive/tar"
	"bytes"
	"io"
	"slices"
	"strings"
	"testing"
	"time"
)

// entries reads an archive.
func entries(t *testing.T, archive []byte) (headers []*tar.Header) {
	t.Helper()
	for r := tar.NewReader(bytes.NewReader(archive)); ; {
		h, err := r.Next()
		if err == io.EOF {
			return headers
		}
		if err != nil {
			t.Fatal(err)
		}
		headers = append(headers, h)
	}
}

func names(headers []*tar.Header) (names []string) {
	for _, h := range headers {
		names = append(names, h.Name)
	}
	return names
}

var sample = []File{
	{Path: "tmp/", Mode: 0o1777},
	{Path: "usr/bin/x", Mode: 0o755, Data: []byte("program")},
	{Path: "usr/bin/y", Mode: 0o755, Hard: "usr/bin/x"},
	{Path: "x", Link: "usr/bin/x"},
}

func TestEqualFilesMakeAnEqualArchiveWithAllParents(t *testing.T) {
	var one, two bytes.Buffer
	for _, w := range []io.Writer{&one, &two} {
		if err := Write(w, Form{}, sample); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(one.Bytes(), two.Bytes()) {
		t.Error("two archives of equal files differ")
	}

	want := []string{"tmp/", "usr/", "usr/bin/", "usr/bin/x", "usr/bin/y", "x"}
	if got := names(entries(t, one.Bytes())); !slices.Equal(got, want) {
		t.Errorf("names %q, want %q", got, want)
	}
}

func TestEntriesHaveThePrefixTheTimeAndTheOwner(t *testing.T) {
	var out bytes.Buffer
	changed := time.Unix(1_700_000_000, 0)
	if err := Write(&out, Form{Prefix: "./", Time: changed, Owner: "root"}, sample); err != nil {
		t.Fatal(err)
	}

	headers := entries(t, out.Bytes())
	want := []string{"./", "./tmp/", "./usr/", "./usr/bin/", "./usr/bin/x", "./usr/bin/y", "./x"}
	if got := names(headers); !slices.Equal(got, want) {
		t.Errorf("names %q, want %q", got, want)
	}

	for _, h := range headers {
		if !h.ModTime.Equal(changed) || h.Uname != "root" || h.Gname != "root" || h.Uid != 0 {
			t.Errorf("%s: changed %s by %s:%s (%d)", h.Name, h.ModTime, h.Uname, h.Gname, h.Uid)
		}
		if h.Typeflag == tar.TypeLink && h.Linkname != "./usr/bin/x" {
			t.Errorf("%s is another name of %s", h.Name, h.Linkname)
		}
	}
}

func TestAMissingSourceIsNamed(t *testing.T) {
	err := Write(io.Discard, Form{}, []File{{Path: "a", Source: "/no/such/file"}})
	if err == nil || !strings.Contains(err.Error(), "file a: ") {
		t.Errorf("error %v", err)
	}
}
