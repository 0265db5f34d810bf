package platform

import (
	"fmt"
	"runtime"
	"slices"
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
		if got := Name(Normalize(p)); got != want {
			t.Errorf("%s is taken for %s, want %s", text, got, want)
		}
	}
}

func TestIndexMayWriteThePlatformOtherwise(t *testing.T) {
	other := map[string]string{"amd64": "X86_64", "arm64": "aarch64", "386": "i386"}[runtime.GOARCH]
	if other == "" {
		t.Skip("there is only one name for ", runtime.GOARCH)
	}
	want := ocispec.Descriptor{Size: 7, Platform: &ocispec.Platform{OS: "linux", Architecture: other}}
	list := []ocispec.Descriptor{{Platform: &ocispec.Platform{OS: "linux", Architecture: "s390x"}}, want}
	if got, err := Choose(list, Host()); err != nil || got.Size != want.Size {
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
	_, err := Choose(list, Host())
	if err == nil || len(err.Error()) > 2000 || !strings.Contains(err.Error(), "99988 more") {
		t.Errorf("error of %d bytes: %.200v", len(err.Error()), err)
	}
}

func TestPlatformsAreAskedForByName(t *testing.T) {
	for text, want := range map[string]string{
		"":                                    "linux/" + runtime.GOARCH,
		"linux/aarch64":                       "linux/arm64",
		"linux/arm/7":                         "linux/arm/v7",
		"linux/amd64/v3":                      "linux/amd64/v3",
		"windows/amd64":                       "only images for linux",
		"arm64":                               "OS/ARCHITECTURE",
		"linux/":                              "OS/ARCHITECTURE",
		"a/b/c/d":                             "OS/ARCHITECTURE",
		"linux/" + strings.Repeat("x/", 1000): "OS/ARCHITECTURE",
	} {
		got, err := Parse(text)
		if err == nil && Name(got) != want || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%.100q: %s, %.300v; want %s", text, Name(got), err, want)
		}
	}
}

func TestVariantsFitTheOneThatIsAskedFor(t *testing.T) {
	for asked, fits := range map[string]string{
		"linux/arm/v6":   "linux/arm/v6 linux/arm/v5",
		"linux/arm":      "linux/arm/v7 linux/arm/v6 linux/arm/v5",
		"linux/amd64":    "linux/amd64 linux/amd64/v1",
		"linux/amd64/v3": "linux/amd64/v3 linux/amd64 linux/amd64/v1",
	} {
		want, err := Parse(asked)
		if err != nil {
			t.Fatal(err)
		}

		for offered := range strings.FieldsSeq("linux/arm/v5 linux/arm/v6 linux/arm/v7 linux/arm/v8 " +
			"linux/amd64 linux/amd64/v1 linux/amd64/v3 linux/arm64 windows/amd64") {
			parts := append(strings.Split(offered, "/"), "")
			p := ocispec.Platform{OS: parts[0], Architecture: parts[1], Variant: parts[2]}
			expected := slices.Contains(strings.Fields(fits), offered)
			if Fits(p, want) != expected {
				t.Errorf("%s where %s is asked for: %t", offered, asked, !expected)
			}
		}
	}
}
