// Package platform chooses, of the platforms that an image is made for, the one that fits (OCI image-spec
// config.md and image-index.md), by the names that Go and containerd have for them.
package platform

import (
	"fmt"
	"runtime"
	"slices"
	"strconv"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Host returns the platform of this machine.
func Host() ocispec.Platform {
	return ocispec.Platform{OS: "linux", Architecture: runtime.GOARCH}
}

// Parse reads a platform as people write it, "linux/arm64" or "linux/arm/v7". "" is this machine's.
func Parse(text string) (ocispec.Platform, error) {
	if text == "" {
		return Host(), nil
	}

	parts := strings.Split(text, "/")
	if len(parts) < 2 || len(parts) > 3 || slices.Contains(parts, "") {
		return ocispec.Platform{}, fmt.Errorf("platform %s: want OS/ARCHITECTURE[/VARIANT]", quote(text))
	}

	p := ocispec.Platform{OS: parts[0], Architecture: parts[1]}
	if len(parts) == 3 {
		p.Variant = parts[2]
	}

	p = Normalize(p)
	if p.OS != "linux" {
		return p, fmt.Errorf("platform %s: only images for linux run here", quote(text))
	}

	return p, nil
}

// Choose returns the manifest of an index that fits a platform.
func Choose(list []ocispec.Descriptor, want ocispec.Platform) (ocispec.Descriptor, error) {
	var best ocispec.Descriptor
	score := 0
	var offered []string
	for _, d := range list {
		// A single manifest without a platform is taken; its configuration says what it is for.
		if d.Platform == nil {
			if len(list) == 1 {
				return d, nil
			}

			continue
		}

		p := Normalize(*d.Platform)
		offered = append(offered, Name(p))
		if got := fit(p, want); got > score {
			best = d
			score = got
		}
	}

	if score > 0 {
		return best, nil
	}

	// An index may have any number of entries, and the error becomes an event of the pod.
	const most = 12
	if more := len(offered) - most; more > 0 {
		offered = append(slices.Clip(offered[:most]), fmt.Sprintf("%d more", more))
	}

	return best, fmt.Errorf("no image for %s; there are %s", Name(want), strings.Join(offered, ", "))
}

// Fits reports whether an image for p runs where want is asked for.
func Fits(p, want ocispec.Platform) bool { return fit(Normalize(p), want) > 0 }

// Name returns a platform as people write it. It is quoted if it would spoil a line.
func Name(p ocispec.Platform) string {
	name := strings.TrimSuffix(p.OS+"/"+p.Architecture+"/"+p.Variant, "/")
	if quoted := quote(name); quoted != `"`+name+`"` {
		return quoted
	}
	return name
}

// quote returns a text that others wrote in one line, and not longer than 100 bytes.
func quote(text string) string {
	const most = 100
	if len(text) > most {
		text = text[:most] + "..."
	}
	return strconv.Quote(text)
}

// fit returns 0 for a platform that does not run where want is asked for, and a higher number for one that
// fits better. The variant counts only on arm, unless it is asked for: arm64 is always v8, and 32-bit arm
// runs its own version and older ones.
func fit(p, want ocispec.Platform) int {
	if p.OS != want.OS || p.Architecture != want.Architecture {
		return 0
	}

	newest := want.Variant
	if newest == "" {
		newest = "v7"
	}

	switch {
	case p.Variant == want.Variant:
		return 11
	case p.Variant == "":
		return 10
	case p.Architecture == "arm" && len(p.Variant) == 2 && p.Variant <= newest:
		return int(p.Variant[1] - '0')
	}

	return 0
}

// Normalize returns a platform by the names that Go has for it, as containerd does: build tools also write
// those of uname(1) and of Debian. A name that is missing is taken to be this machine's.
func Normalize(p ocispec.Platform) ocispec.Platform {
	p.OS = strings.ToLower(p.OS)
	p.Architecture = strings.ToLower(p.Architecture)
	if p.OS == "" {
		p.OS = "linux"
	}

	switch p.Architecture {
	case "":
		p.Architecture = runtime.GOARCH
	case "x86_64", "x86-64":
		p.Architecture = "amd64"
	case "i386":
		p.Architecture = "386"
		p.Variant = ""
	case "aarch64":
		p.Architecture = "arm64"
	case "armhf":
		p.Architecture = "arm"
		p.Variant = "v7"
	case "armel":
		p.Architecture = "arm"
		p.Variant = "v6"
	}

	p.Variant = normalVariant(p.Architecture, strings.ToLower(p.Variant))
	return p
}

// normalVariant returns "" for a variant that the architecture implies.
func normalVariant(architecture, variant string) string {
	if len(variant) == 1 && variant[0] >= '1' && variant[0] <= '9' {
		variant = "v" + variant
	}
	switch {
	case architecture == "amd64" && variant == "v1":
		return ""
	case architecture == "arm64" && variant == "v8":
		return ""
	}
	return variant
}
