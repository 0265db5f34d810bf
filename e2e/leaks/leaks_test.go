package leaks

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"
)

func TestAPodIsKnownByItsUIDHoweverItIsWritten(t *testing.T) {
	const live, dead = "6f9b2c1e-0000-4000-8000-000000000001", "6f9b2c1e-0000-4000-8000-000000000002"
	v := View{Live: []Pod{{UID: live}}}
	for text, want := range map[string]string{
		"/kubepods/besteffort/pod" + live + "/abc":                                     "",
		"/kubepods/besteffort/pod" + dead:                                              dead,
		"kubepods-besteffort-pod" + strings.ReplaceAll(dead, "-", "_") + ".slice":      dead,
		"kubepods-besteffort-pod" + strings.ReplaceAll(live, "-", "_") + ".slice/crio": "",
		"default_web_" + dead: dead,
		"/system.slice":       "",
	} {
		if got := v.foreign(text); got != want {
			t.Errorf("%s: %q, want %q", text, got, want)
		}
	}
}

func TestUnitsOfPodsThatAreGoneAreLeft(t *testing.T) {
	const slice = "kubepods-besteffort-pod6f9b2c1e_0000_4000_8000_000000000001.slice"
	names := []string{"kubepods.slice", slice, "trivet-1.scope"}
	for _, c := range []struct {
		view View
		want string
	}{
		{View{}, slice + " trivet-1.scope"},
		{View{Live: []Pod{{UID: "6f9b2c1e-0000-4000-8000-000000000001"}}}, ""},
		{View{Live: []Pod{{UID: "6f9b2c1e-0000-4000-8000-000000000002"}}}, slice},
	} {
		if got := strings.Join(c.view.foreignUnits(names), " "); got != c.want {
			t.Errorf("with %v live: %s, want %s", c.view.Live, got, c.want)
		}
	}
}

func TestSnapshotShowsWhatIsNew(t *testing.T) {
	before := Snapshot{Links: []string{"lo", "eth0"}, Forward: "0"}
	now := Snapshot{
		Links:   []string{"lo", "eth0", "veth1"},
		Tables:  []string{"1 kube-proxy"},
		Forward: "1",
		Paths:   []string{"/run/trivet"},
		Loops:   []string{"/dev/loop0 on /pool.img (deleted)"},
	}

	var kinds []string
	for _, l := range now.Since(before) {
		kinds = append(kinds, l.Kind)
	}

	if got := strings.Join(kinds, ","); got != "link,nft table,directory,loop device,sysctl" {
		t.Errorf("kinds %s", got)
	}

	// Only the sysctl: what went away is not a leak.
	if left := before.Since(now); len(left) != 1 {
		t.Errorf("left %v", left)
	}
}

func TestAwaitNamesWhatStays(t *testing.T) {
	calls := 0
	err := Await(t.Context(), time.Second, func() ([]Leak, error) {
		if calls++; calls < 3 {
			return []Leak{{"mount", "/x"}}, nil
		}

		return nil, nil
	})
	if err != nil || calls != 3 {
		t.Errorf("%v after %d looks, want none after 3", err, calls)
	}

	err = Await(t.Context(), 0, func() ([]Leak, error) { return []Leak{{"mount", "/x"}}, nil })
	if _, ok := errors.AsType[Error](err); !ok || !strings.Contains(err.Error(), "mount /x") {
		t.Errorf("error %v, want one that names the mount", err)
	}

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := Await(ctx, time.Hour, func() ([]Leak, error) {
		return []Leak{
			{"mount", "/x"},
		}, nil
	}); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want canceled", err)
	}
}
