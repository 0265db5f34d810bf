package layer

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/trivet-node/trivet/internal/testenv"
)

// What a layer between hides is as if it had never been, also when it is not the name itself that is hidden.
func TestHiddenDirectoriesPassNothingOn(t *testing.T) {
	testenv.Root(t)
	low := []entry{dir("d", 0o700), dir("d/sub", 0o711), file("d/sub/f", "old")}
	for name, between := range map[string][]entry{
		"removed":  {file(".wh.d", "")},
		"replaced": {file("d", "")},
		"opaque":   {dir("d", 0o755), file("d/.wh..wh..opq", "")},
	} {
		t.Run(name, func(t *testing.T) {
			got := stack(t, t.TempDir(), low, between, []entry{file("d/sub/x", "1")})
			if diff := cmp.Diff([]string{"d/ 755", "d/sub/ 755", "d/sub/x = 1"}, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// hidingLinkCases are those in which a directory hides the layers below.
var hidingLinkCases = map[string]linkCase{
	"so does hiding what is below": {
		[][]entry{usrMerged, {file("lib/.wh..wh..opq", ""), file("lib/x", "1")}},
		[]string{"lib/ 755", "lib/x = 1"},
	},
	"what the layer has there is not hidden": {[][]entry{usrMerged, {file("lib/.wh.f", ""),
		file("usr/lib/f", "1"), file("lib/.wh.d", ""), file("usr/lib/d/x", "2"), file("lib/.wh.g", "")}},
		[]string{"usr/ 755", "usr/lib/ 750", "usr/lib/d/ 755", "usr/lib/d/x = 2", "usr/lib/f = 1",
			"usr/lib/g hidden"}},
	"the way there was removed": {[][]entry{usrMerged, {file(".wh.usr", ""), file("lib/x", "1")}},
		[]string{"usr/ 755", "usr/lib/ 755", "usr/lib/x = 1"}},
}

func TestLinksBelowAreNotFollowedWhereTheyAreHidden(t *testing.T) {
	testenv.Root(t)
	for name, c := range hidingLinkCases {
		t.Run(name, c.check)
	}
}
