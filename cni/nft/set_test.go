package nft

import (
	"errors"
	"slices"
	"testing"

	"github.com/google/nftables"

	"github.com/trivet-node/trivet/cni/netlink"
)

// listOf is a list with some keys, as the kernel has sent it.
func listOf(keys ...string) *listing {
	l := &listing{seen: map[string]bool{}}
	for _, k := range keys {
		l.add([]nftables.SetElement{{Key: []byte(k)}})
	}
	return l
}

// keysOf reads lists, of which the last one comes for each further try, as Elements does.
func keysOf(lists ...*listing) (keys []string, reads int, err error) {
	elements, err := untilSame("s", func() (*listing, error) {
		reads++
		return lists[min(reads, len(lists))-1], nil
	})
	for _, e := range elements {
		keys = append(keys, string(e.Key))
	}
	return keys, reads, err
}

func TestAListIsReadUntilItIsTheSameTwice(t *testing.T) {
	whole, ab, ba := listOf("a"), listOf("a", "b"), listOf("b", "a")
	whole.isWhole = true
	for name, c := range map[string]struct {
		lists []*listing
		want  []string
		reads int
	}{
		"in one piece":            {[]*listing{whole, listOf("b")}, []string{"a"}, 1},
		"the same":                {[]*listing{ab, ba}, []string{"b", "a"}, 2},
		"one was missing":         {[]*listing{listOf("a"), ab}, []string{"a", "b"}, 3},
		"one came twice":          {[]*listing{listOf("a", "b", "a"), ba}, []string{"b", "a"}, 2},
		"the second is the whole": {[]*listing{listOf("b"), whole}, []string{"a"}, 2},
		"nothing, twice":          {[]*listing{listOf(), listOf()}, nil, 2},
	} {
		keys, reads, err := keysOf(c.lists...)
		if err != nil || !slices.Equal(keys, c.want) || reads != c.reads {
			t.Errorf("%s: %q after %d lists, %v", name, keys, reads, err)
		}
	}
}

func TestAListThatIsNeverTheSameIsAnError(t *testing.T) {
	var lists []*listing
	for i := range listTries {
		lists = append(lists, listOf(string(rune('a'+i%2))))
	}
	if keys, _, err := keysOf(lists...); !errors.Is(err, netlink.ErrChanging) || keys != nil {
		t.Errorf("%q, %v", keys, err)
	}
}

// The end of one interval may be the beginning of another.
func TestElementsAreToldApartByMoreThanTheirKey(t *testing.T) {
	l := listOf("a")
	l.add([]nftables.SetElement{
		{Key: []byte("a"), IntervalEnd: true},
		{Key: []byte("a"), Val: []byte("b")},
		{Key: []byte("a"), Comment: "c"},
		{Key: []byte("a"), KeyEnd: []byte("d")},
		{Key: []byte("a")},
	})
	if len(l.elements) != 5 {
		t.Errorf("%+v", l.elements)
	}
}
