package image

import (
	"fmt"
	"strings"
	"testing"
)

func TestReferenceIsThatOfTheNameAskedFor(t *testing.T) {
	d := func(c string) string { return "@sha256:" + strings.Repeat(c, 64) }
	img := Image{
		ID: "sha256:" + strings.Repeat("9", 64),
		Digests: []string{
			"docker.io/library/a" + d("c"),
			"quay.io/b" + d("b"),
			"docker.io/library/a" + d("a"),
		},
	}

	for asked, want := range map[string]string{
		// The last pulled.
		"a":                            "docker.io/library/a" + d("c"),
		"a:1":                          "docker.io/library/a" + d("c"),
		"docker.io/library/a":          "docker.io/library/a" + d("c"),
		"a" + d("a"):                   "docker.io/library/a" + d("a"),
		"quay.io/b:2":                  "quay.io/b" + d("b"),
		"quay.io/other":                "docker.io/library/a" + d("c"),
		img.ID:                         "docker.io/library/a" + d("c"),
		"no/Name":                      "docker.io/library/a" + d("c"),
		"quay.io/b:3" + d("0"):         "quay.io/b" + d("b"),
		"docker.io/library/b" + d("b"): "docker.io/library/a" + d("c"),
	} {
		if got := img.Reference(asked); got != want {
			t.Errorf("asked for as %s: %s, want %s", asked, got, want)
		}
	}

	if got := (Image{ID: "sha256:9"}).Reference("a"); got != "sha256:9" {
		t.Errorf("without a digest: %s", got)
	}
}

func TestDigestsOfARecordAreBoundedAndTheLastPulledIsLast(t *testing.T) {
	var r record
	for i := range 1000 {
		r.addDigest(fmt.Sprint("a@", i), false)
	}
	r.addDigest("a@990", false)
	if n := len(r.Digests); n != maxDigests || r.Digests[n-1] != "a@990" || r.Digests[n-2] != "a@999" {
		t.Errorf("%d digests, the last ones are %q", n, r.Digests[n-2:])
	}
}

func TestDigestOfAnArchiveComesAfterThoseOfTheRepository(t *testing.T) {
	var r record
	for _, archived := range []bool{true, false, true, true} {
		r.addDigest(fmt.Sprintf("a@%t%d", archived, len(r.Digests)), archived)
	}
	if got := strings.Join(r.Digests, " "); got != "a@true3 a@true2 a@true0 a@false1" {
		t.Errorf("the last is not that of the registry: %s", got)
	}
}
