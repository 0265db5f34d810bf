package registry

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestChallengesAreRead(t *testing.T) {
	for header, want := range map[string][]challenge{
		`Bearer realm="https://a/t",service="s, \"t\"", scope=pull`: {
			{"bearer", map[string]string{"realm": "https://a/t", "service": `s, "t"`, "scope": "pull"}}},
		`Negotiate, Basic realm="x", Bearer realm = "y"`: {
			{"negotiate", map[string]string{}},
			{"basic", map[string]string{"realm": "x"}},
			{"bearer", map[string]string{"realm": "y"}}},
		`Basic`:              {{"basic", map[string]string{}}},
		`Bearer realm="open`: {{"bearer", map[string]string{"realm": "open"}}},
		` ,="`:               nil,
	} {
		got := parseChallenges([]string{header})
		if diff := cmp.Diff(want, got, cmp.AllowUnexported(challenge{})); diff != "" {
			t.Errorf("%s (-want +got):\n%s", header, diff)
		}
	}
}

// Whatever a registry says, a challenge that is put after it is understood, unless a quoted string has
// swallowed it.
func FuzzChallenge(f *testing.F) {
	f.Add(`Bearer realm="https://a/t",service="s"`, "scope")
	f.Add(`Basic a=b c=", \"`, `"`)
	f.Fuzz(func(t *testing.T, header, value string) {
		for _, c := range parseChallenges([]string{header, fmt.Sprintf("Bearer realm=%q", value)}) {
			if c.scheme == "" || c.params == nil {
				t.Errorf("%q gave %+v", header, c)
			}
		}
	})
}
