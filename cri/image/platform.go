package image

import (
	"fmt"
	"runtime"
	"slices"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// choose returns the manifest of an index that is for this machine's platform.
func choose(list []ocispec.Descriptor) (ocispec.Descriptor, error) {
	var best ocispec.Descriptor
	score := 0
	var offered []string
	for _, d := range list {
		// A single manifest without a platform is taken; parseConfig checks what it is for.
		if d.Platform == nil {
			if len(list) == 1 {
				return d, nil
			}

			continue
		}

		p := normalize(*d.Platform)
		offered = append(offered, platformName(p))
		if got := fit(p); got > score {
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

	err := fmt.Errorf("no image for linux/%s; there are %s", runtime.GOARCH, strings.Join(offered, ", "))
	return best, err
}

// platformName returns a platform as people write it.
func platformName(p ocispec.Platform) string {
	name := strings.TrimSuffix(p.OS+"/"+p.Architecture+"/"+p.Variant, "/")
	if quoted := quote(name); quoted != `"`+name+`"` {
		return quoted
	}
	return name
}

// fit returns 0 for a platform that cannot run here, and a higher number for one that fits better. The
// variant counts only on arm: arm64 is always v8, and 32-bit arm runs its own version and older ones.
func fit(p ocispec.Platform) int {
	if p.OS != "linux" || p.Architecture != runtime.GOARCH {
		return 0
	}
	switch {
	case p.Variant == "":
		return 10
	case p.Architecture == "arm" && len(p.Variant) == 2 && p.Variant <= "v7":
		return int(p.Variant[1] - '0')
	}
	return 0
}

// normalize returns a platform by the names that Go has for it, as containerd does: build tools also write
// those of uname(1) and of Debian. A name that is missing is taken to be this machine's.
func normalize(p ocispec.Platform) ocispec.Platform {
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
