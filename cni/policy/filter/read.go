package filter

import (
	"errors"
	"fmt"
	"math"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"

	"github.com/trivet-node/trivet/cni/netlink"
	"github.com/trivet-node/trivet/cni/nft"
)

// tableReader reads a table into a layout.
type tableReader struct {
	nft.Reader
	layout *layout
	// kinds has the sets of the layout that is wanted, whose fixed ones are read.
	wanted *layout
}

// readTable reads a table of the kernel, as far as it has what a wanted one has or leads to. lacks says that
// there is none.
func readTable(table *nftables.Table, wanted *layout) (have *layout, lacks string, err error) {
	r := tableReader{layout: newLayout(table), wanted: wanted}
	err = nft.Read(byte(table.Family), table.Name, func(reader nft.Reader) error {
		r.Reader = reader
		there, err := reader.HasTable()
		if err == nil && !there {
			lacks = "nftables table " + table.Name + " is missing"
		}
		if err != nil || !there {
			return err
		}
		return r.read()
	})
	return r.layout, lacks, err
}

func (r tableReader) read() error {
	for name, c := range r.wanted.chains {
		if c.hook == nil {
			continue
		}
		if err := r.chain(name, true); err != nil {
			return err
		}
	}
	for name, s := range r.wanted.sets {
		if isNumbered(name) {
			continue
		}
		if err := r.set(name, s.kind); err != nil {
			return err
		}
	}
	return nil
}

// base reads where the kernel calls a chain. One that it does not call is as one at no hook.
func (r tableReader) base(name string, c *chain) error {
	base, err := r.Base(name)
	if err != nil {
		return err
	}
	if base == nil {
		c.hook = new(notCalled)
		return nil
	}
	c.hook, c.priority = &base.Hook, base.Priority
	c.drops = base.Policy != nftables.ChainPolicyAccept
	return nil
}

// notCalled is the hook of a chain that has none.
const notCalled nftables.ChainHook = math.MaxUint32

// chain reads the rules of a chain: the verdicts that they begin with, and their text.
func (r tableReader) chain(name string, isBase bool) error {
	count, err := r.CountOf(name)
	if err != nil || count < 0 {
		return err
	}
	rules, err := r.Rules(name)
	if err != nil {
		return err
	}

	c := &chain{}
	if isBase {
		if err := r.base(name, c); err != nil {
			return err
		}
	}
	for _, one := range rules {
		c.texts = append(c.texts, one.Text())
		begin := rule{nil}
		if one.Verdict != nil {
			begin[0] = one.Verdict
		}
		c.rules = append(c.rules, begin)
	}
	r.layout.chains[name] = c

	for _, one := range rules {
		if one.Verdict != nil {
			if err := r.follow(*one.Verdict); err != nil {
				return err
			}
		}
	}
	return nil
}

// set reads the elements of a set, and what they lead to.
func (r tableReader) set(name string, kind setKind) error {
	if r.layout.sets[name] != nil {
		return nil
	}
	elements, err := r.Elements(&nftables.Set{Name: name})
	if netlink.IsNotExist(err) {
		return nil
	}
	if err != nil {
		return err
	}

	s := r.layout.set(name, kind)
	for _, e := range elements {
		key := string(e.Key)
		have := element{end: string(e.KeyEnd), isEnd: e.IntervalEnd}
		if e.IntervalEnd {
			key += endMark
		}
		if e.VerdictData != nil {
			have.verdict = *e.VerdictData
		}
		s.elements[key] = have

		if err := r.follow(have.verdict); err != nil {
			return err
		}
	}
	return nil
}

// follow reads the chain that a verdict leads to, and its sets.
func (r tableReader) follow(v expr.Verdict) error {
	if v.Chain == "" || r.layout.chains[v.Chain] != nil {
		return nil
	}
	if err := r.chain(v.Chain, false); err != nil {
		return err
	}

	if strings.HasPrefix(v.Chain, "ports") {
		return r.set(v.Chain, setKind{key: "port", interval: true})
	}

	n := strings.TrimPrefix(v.Chain, "profile")
	var err error
	for _, f := range []family{v4, v6} {
		peers, blocks := fmt.Sprintf("peers%s_%s", n, f.suffix), fmt.Sprintf("blocks%s_%s", n, f.suffix)
		err = errors.Join(err,
			r.set(peers, setKind{key: f.key, verdicts: true}),
			r.set(blocks, setKind{key: f.key, verdicts: true, interval: true}),
		)
	}
	return err
}
