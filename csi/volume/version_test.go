package volume

import (
	"errors"
	"testing"
)

// An earlier version reads records of version 1 only. It must not serve what it takes for something else.
func TestEarlierVersionsSeeOnlyWhatTheyKnow(t *testing.T) {
	for name, c := range map[string]struct {
		spec Spec
		want int
	}{
		"a plain volume":       {Spec{}, 1},
		"a snapshot":           {Spec{Source: "vol-1", Snapshot: true}, 2},
		"a clone":              {Spec{Source: "vol-1"}, 2},
		"a reserved volume":    {Spec{Reserve: true}, 2},
		"an image in the pool": {Spec{Access: Block, Pooled: true}, 2},
		"an encrypted volume":  {Spec{Encryption: Fscrypt, Pooled: true}, 3},
	} {
		c.spec.ID, c.spec.Size = "vol-2", 1<<20
		if got := versionOf(c.spec); got != c.want {
			t.Errorf("%s: version %d, want %d", name, got, c.want)
		}

		for version := range 5 {
			err := record{Version: version, Phase: ready, Spec: c.spec}.check("vol-2")
			if (err == nil) != (version == c.want) || err != nil && !errors.Is(err, ErrDamaged) {
				t.Errorf("%s with a record of version %d: %v", name, version, err)
			}
		}
	}
}
