package image

import (
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/trivet-node/trivet/cri/image/platform"
)

func TestConfigurationMayWriteThePlatformOtherwise(t *testing.T) {
	other := map[string]string{"amd64": "X86_64", "arm64": "aarch64", "386": "i386"}[runtime.GOARCH]
	if other == "" {
		t.Skip("there is only one name for ", runtime.GOARCH)
	}

	config := fmt.Appendf(nil, `{"os":"linux","architecture":%q}`, other)
	if _, _, err := parseConfig(config, 0, platform.Host()); err != nil {
		t.Errorf("configuration for %s: %v", other, err)
	}
}

// A manifest that is an image to one reader and an index to the next could be checked as the one and run as
// the other.
func TestManifestIsOneThing(t *testing.T) {
	d := "sha256:" + strings.Repeat("a", 64)
	for text, want := range map[string]string{
		`{"schemaVersion":2,"config":{"digest":"D"},"layers":[],"manifests":[{"digest":"D"}]}`: "neither",
		`{"schemaVersion":2}`:                                                   "neither",
		`{"schemaVersion":1,"config":{"digest":"D"}}`:                           "schema version 1",
		`{"schemaVersion":2,"config":{"digest":"../../x"}}`:                     "digest",
		`{"schemaVersion":2,"config":{"digest":"D"},"layers":[{"digest":"x"}]}`: "digest",
		`{"schemaVersion":2,"config":{"digest":"D","size":99999999}}`:           "at most",
		`{"schemaVersion":2,"config":{"digest":"D","size":-1}}`:                 "size -1",
	} {
		_, err := parseManifest([]byte(strings.ReplaceAll(text, "D", d)), "")
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want one with %q", text, err, want)
		}
	}

	long := fmt.Sprintf(`{"schemaVersion":2,"config":{"digest":%q}}`, strings.Repeat("x", 1<<20))
	if _, err := parseManifest([]byte(long), ""); err == nil || len(err.Error()) > 500 {
		t.Errorf("error of a digest of a megabyte: %.600v", err)
	}
}

func FuzzManifest(f *testing.F) {
	f.Add([]byte(`{"schemaVersion":2,"config":{"mediaType":"x","digest":"sha256:a"},"layers":[{}]}`))
	f.Add([]byte(`{"schemaVersion":2,"manifests":[{"digest":"sha256:a","platform":{"os":"linux"}}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := parseManifest(data, "sha256:x")
		if err != nil {
			return
		}

		if m.Config.Digest == "" {
			if d, err := platform.Choose(m.Manifests, platform.Host()); err == nil && d.Digest == "" {
				t.Errorf("%s: a manifest without digest was chosen", data)
			}

			return
		}

		if chain := artifactChain(m); len(chain) != len(m.Layers) {
			t.Errorf("%s: %d names for %d layers", data, len(chain), len(m.Layers))
		}
	})
}

func FuzzConfig(f *testing.F) {
	f.Add([]byte(`{"os":"linux","architecture":"amd64","rootfs":{"diff_ids":["sha256:a"]}}`), 1)
	f.Fuzz(func(t *testing.T, data []byte, layers int) {
		if _, chain, err := parseConfig(data, layers, platform.Host()); err == nil && len(chain) != layers {
			t.Errorf("%d names for %d layers", len(chain), layers)
		}
	})
}
