package main

import (
	"strings"
	"testing"
	"time"

	"github.com/trivet-node/trivet/e2e/bench"
	"github.com/trivet-node/trivet/e2e/bench/figure"
)

func TestImagesOfTheBenchmarkAreTheSameEveryTime(t *testing.T) {
	small := benchImage{name: "x", layers: [][]file{{{"a/b", []byte("text")}}, {{"c", []byte("more")}}}}
	var digests []string
	for range 2 {
		image, err := small.build()
		if err != nil {
			t.Fatal(err)
		}

		digest, err := image.Digest()
		if err != nil {
			t.Fatal(err)
		}

		digests = append(digests, digest.String())
	}

	if digests[0] != digests[1] {
		t.Errorf("digests %v", digests)
	}
	if got := small.reference("127.0.0.1:5000"); got != "127.0.0.1:5000/bench/x:1" {
		t.Errorf("reference %s", got)
	}
}

func TestSmallFilesAreManyInManyDirectories(t *testing.T) {
	dirs := map[string]bool{}
	size := 0
	files := smallFiles()
	for _, f := range files {
		dirs[f.name[:strings.LastIndexByte(f.name, '/')]] = true
		size += len(f.data)
	}
	if len(files) != 11_000 || len(dirs) < 1300 || size < 90_000_000 || size > 100_000_000 {
		t.Errorf("%d files in %d directories, %d bytes", len(files), len(dirs), size)
	}
}

func TestPullsAreShownByTheirMedian(t *testing.T) {
	pulls := bench.Trials{
		{Took: 3 * time.Second, CPU: time.Second},
		{Took: time.Second, CPU: 2 * time.Second},
		{Took: 2 * time.Second, CPU: 3 * time.Second},
	}
	figures := figuresOf("one layer", figure.Ours, pulls)
	if figures[0].Median != 2000 || figures[1].Median != 2 || figures[1].Unit != "s" {
		t.Errorf("figures %+v", figures)
	}
}
