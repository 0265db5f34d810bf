package main

import (
	"strings"
	"testing"
)

func TestKindsThatThereAreNotAreNamed(t *testing.T) {
	for _, begin := range []string{"", "trivet:", "image", "a loop"} {
		if err := checkKinds(begin, names()); err != nil {
			t.Errorf("%q: %v", begin, err)
		}
	}

	if err := checkKinds(bareLoop, []string{"lives", "kinds"}); err == nil {
		t.Error("what the part io alone measures was taken for one that others do")
	}

	err := checkKinds("subvolume", names())
	for _, want := range []string{"subvolume", bareLoop, kinds[0].name, kinds[len(kinds)-1].name} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("the error is %v, and does not name %q", err, want)
		}
	}
}
