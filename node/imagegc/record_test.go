package imagegc

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestLastUsesSurviveARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		n.policy.MaxAge = 3 * time.Hour
		n.add("a", "b")
		n.runs("1", "a")
		n.runs("2", "b")
		c := n.collector()
		n.collect(c)

		// The container of a goes, and two hours later the agent.
		n.containers = n.containers[1:]
		n.collect(c)
		time.Sleep(2 * time.Hour)
		n.collect(c)

		// While there is none, that of b goes: it may have run until now.
		n.containers = nil
		time.Sleep(90 * time.Minute)
		c = n.collector()
		n.collect(c)
		n.wantLeft("b")

		time.Sleep(2 * time.Hour)
		n.collect(c)
		n.wantLeft("b")
		time.Sleep(2 * time.Hour)
		n.collect(c)
		n.wantLeft("")
	})
}

func TestRecordsThatCannotBeReadAreReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		n.policy.MaxAge = time.Hour
		path := filepath.Join(n.dir, "image_gc_state.json")
		if err := os.WriteFile(path, []byte("{torn"), 0o600); err != nil {
			t.Fatal(err)
		}

		n.add("a")
		n.collect(n.collector())
		n.wantLeft("a")
		if data, err := os.ReadFile(path); err != nil || !strings.HasPrefix(string(data), `{"a":`) {
			t.Errorf("%q, %v", data, err)
		}
	})
}

func TestAnIdleNodeWritesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		n.add("a", "b")
		n.runs("1", "a")
		c := n.collector()
		n.collect(c)

		path := filepath.Join(n.dir, "image_gc_state.json")
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}

		for range 3 {
			time.Sleep(period)
			n.collect(c)
		}

		if _, err := os.Stat(path); err == nil {
			t.Error("the records were written though no use of an image has begun or ended")
		}
	})
}
