package kind

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestLongCommandShowsALineAfterEachInterval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out strings.Builder
		s := &sampled{out: &out, every: 10 * time.Second}
		for _, text := range []string{"one\ntwo\nth", "ree\n", "\n"} {
			if _, err := s.Write([]byte(text)); err != nil {
				t.Fatal(err)
			}
		}

		time.Sleep(11 * time.Second)
		if _, err := s.Write([]byte("  four\nfive\n")); err != nil {
			t.Fatal(err)
		}

		if got := strings.Fields(out.String()); strings.Join(got, " ") != "one four" {
			t.Errorf("shown: %q", out.String())
		}
	})
}
