package kubeletconfig

import (
	"fmt"
	"strings"

	"github.com/distribution/reference"
)

// checkImagePolicy checks imagePullCredentialsVerificationPolicy and its list of images, as kubelet does.
func (k *Configuration) checkImagePolicy() error {
	switch k.ImagePullCredentialsVerificationPolicy {
	case "NeverVerify", "NeverVerifyPreloadedImages", "NeverVerifyAllowlistedImages", "AlwaysVerify":
	default:
		return fmt.Errorf("imagePullCredentialsVerificationPolicy %q is none of NeverVerify, "+
			"NeverVerifyPreloadedImages, NeverVerifyAllowlistedImages, AlwaysVerify",
			k.ImagePullCredentialsVerificationPolicy)
	}

	list := k.PreloadedImagesVerificationAllowlist
	if len(list) > 0 && k.ImagePullCredentialsVerificationPolicy != "NeverVerifyAllowlistedImages" {
		return fmt.Errorf("preloadedImagesVerificationAllowlist is set, " +
			"but imagePullCredentialsVerificationPolicy is not NeverVerifyAllowlistedImages")
	}

	for i, pattern := range list {
		if err := checkImagePattern(pattern); err != nil {
			return fmt.Errorf("preloadedImagesVerificationAllowlist[%d] %q: %w", i, pattern, err)
		}
	}

	return nil
}

// checkImagePattern accepts the name of an image without tag and digest, and a prefix of names that ends in
// "/*".
func checkImagePattern(pattern string) error {
	if prefix, ok := strings.CutSuffix(pattern, "/*"); ok {
		if prefix == "" || strings.ContainsAny(prefix, "* \t") {
			return fmt.Errorf("want REGISTRY/* or REGISTRY/PATH/*")
		}

		return nil
	}

	name, err := reference.Parse(pattern)
	if err != nil {
		return err
	}

	_, tagged := name.(reference.Tagged)
	_, digested := name.(reference.Digested)
	if tagged || digested {
		return fmt.Errorf("want the name of an image without tag and digest")
	}

	return nil
}
