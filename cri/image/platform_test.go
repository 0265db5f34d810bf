package image

import (
	"fmt"
	"runtime"
	"strings"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func TestPlatformsAreNormalizedAsByContainerd(t *testing.T) {
	for text, want := range map[string]string{
		"linux/x86_64":   "linux/amd64",
		"Linux/AMD64":    "linux/amd64",
		"linux/x86-64":   "linux/amd64",
		"linux/amd64/v1": "linux/amd64",
		"linux/amd64/v3": "linux/amd64/v3",
		"linux/aarch64":  "linux/arm64",
		"linux/arm64/v8": "linux/arm64",
		"linux/arm64/8":  "linux/arm64",
		"linux/arm/7":    "linux/arm/v7",
		"linux/armhf":    "linux/arm/v7",
		"linux/armel":    "linux/arm/v6",
		"linux/i386":     "linux/386",
		"windows/amd64":  "windows/amd64",
		"/":              "linux/" + runtime.GOARCH,
		"linux/riscv64":  "linux/riscv64",

		// Text that would spoil a line is quoted.
		"linux/a\nb":       `"linux/a\nb"`,
		"linux/\u202eevil": `"linux/\u202eevil"`,
	} {
		parts := append(strings.Split(text, "/"), "")
		p := ocispec.Platform{OS: parts[0], Architecture: parts[1], Variant: parts[2]}
		if got := platformName(normalize(p)); got != want {
			t.Errorf("%s is taken for %s, want %s", text, got, want)
		}
	}
}

func TestConfigurationAndIndexMayWriteThePlatformOtherwise(t *testing.T) {
	other := map[string]string{"amd64": "X86_64", "arm64": "aarch64", "386": "i386"}[runtime.GOARCH]
	if other == "" {
		t.Skip("there is only one name for ", runtime.GOARCH)
	}
	if _, _, err := parseConfig(fmt.Appendf(nil, `{"os":"linux","architecture":%q}`, other), 0); err != nil {
		t.Errorf("configuration for %s: %v", other, err)
	}

	want := ocispec.Descriptor{Size: 7, Platform: &ocispec.Platform{OS: "linux", Architecture: other}}
	list := []ocispec.Descriptor{{Platform: &ocispec.Platform{OS: "linux", Architecture: "s390x"}}, want}
	if got, err := choose(list); err != nil || got.Size != want.Size {
		t.Errorf("from an index with %s: %+v, %v", other, got, err)
	}
}

// An index may name a hundred thousand platforms of any text. The error becomes an event of the pod.
func TestErrorOfAnIndexIsShort(t *testing.T) {
	var list []ocispec.Descriptor
	for i := range 100_000 {
		p := ocispec.Platform{OS: strings.Repeat("x", 1000), Architecture: fmt.Sprint(i)}
		list = append(list, ocispec.Descriptor{Platform: &p})
	}
	_, err := choose(list)
	if err == nil || len(err.Error()) > 2000 || !strings.Contains(err.Error(), "99988 more") {
		t.Errorf("error of %d bytes: %.200v", len(err.Error()), err)
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
			if d, err := choose(m.Manifests); err == nil && d.Digest == "" {
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
		if _, chain, err := parseConfig(data, layers); err == nil && len(chain) != layers {
			t.Errorf("%d names for %d layers", len(chain), layers)
		}
	})
}
