package kubeletconfig

import "testing"

func TestImagePolicyIsCheckedAsKubeletChecksIt(t *testing.T) {
	cases := []struct {
		policy string
		list   []string
		ok     bool
	}{
		{"NeverVerifyPreloadedImages", nil, true},
		{"AlwaysVerify", nil, true},
		{"alwaysverify", nil, false},
		{"", nil, false},
		{"NeverVerifyPreloadedImages", []string{"registry.example/a"}, false},
		{
			"NeverVerifyAllowlistedImages",
			[]string{"registry.example/a", "registry.example/b/*", "registry.example/*"},
			true,
		},
		{"NeverVerifyAllowlistedImages", []string{"registry.example/a:v1"}, false},
		{"NeverVerifyAllowlistedImages", []string{"registry.example/*/a"}, false},
		{"NeverVerifyAllowlistedImages", []string{"/*"}, false},
		{"NeverVerifyAllowlistedImages", []string{" registry.example/a"}, false},
	}

	for _, c := range cases {
		k := Configuration{
			ImagePullCredentialsVerificationPolicy: c.policy,
			PreloadedImagesVerificationAllowlist:   c.list,
		}
		if err := k.checkImagePolicy(); (err == nil) != c.ok {
			t.Errorf("%s %q: %v", c.policy, c.list, err)
		}
	}
}
