package filter

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	mdnetlink "github.com/mdlayher/netlink"

	"github.com/trivet-node/trivet/cni/policy"
)

const (
	// maxElements is how many elements a message has: its list is an attribute of at most 64 KB.
	maxElements = 400
	// bufferSize lets a transaction go in one write, and the answers to all of its messages wait.
	bufferSize = 64 << 20
)

// transaction collects the changes of one.
type transaction struct {
	*nftables.Conn
	// changes counts them, and setID is that of the last set: the library would number sets with a counter
	// that all goroutines share.
	changes int
	setID   uint32
	err     error
}

func (f *Filter) begin() (*transaction, error) {
	big := func(conn *mdnetlink.Conn) error {
		if err := f.own(conn); err != nil {
			return err
		}
		if err := conn.SetWriteBuffer(bufferSize); err != nil {
			return err
		}
		return conn.SetReadBuffer(bufferSize)
	}
	conn, err := nftables.New(nftables.WithSockOptions(big))
	if err != nil {
		return nil, fmt.Errorf("prepare nftables socket: %w", err)
	}
	return &transaction{Conn: conn}, nil
}

// commit sends the changes.
func (t *transaction) commit() error {
	if t.err != nil {
		return t.err
	}
	return t.Flush()
}

// keep keeps the first error of what cannot be encoded.
func (t *transaction) keep(err error) {
	if t.err == nil {
		t.err = err
	}
}

// renew makes a table new and empty, whether it is there or not.
func (t *transaction) renew(table *nftables.Table) {
	t.changes++
	t.AddTable(table)
	t.DelTable(table)
	t.AddTable(table)
}

// addCounters adds those of dropped packets to a new table.
func (t *transaction) addCounters(table *nftables.Table) {
	for _, d := range policy.Directions {
		t.AddObj(&nftables.NamedObj{
			Table: table,
			Name:  counterName(d),
			Type:  nftables.ObjTypeCounter,
			Obj:   &expr.Counter{},
		})
	}
}

// update makes what one layout describes what the other one does. Sets and chains come before what leads to
// them, and go after it.
func (t *transaction) update(before, now *layout) {
	for _, name := range missing(before.sets, now.sets) {
		t.addSet(now.table, name, now.sets[name].kind)
	}
	for _, name := range missing(before.chains, now.chains) {
		t.addChain(now.table, name, now.chains[name])
	}
	for _, name := range slices.Sorted(maps.Keys(now.chains)) {
		t.updateRules(now.table, name, before.chains[name], now.chains[name])
	}
	for _, name := range slices.Sorted(maps.Keys(now.sets)) {
		t.updateElements(now.table, name, before.sets[name], now.sets[name])
	}
	t.remove(before, now)
}

// missing returns the names that only the second one has, in order.
func missing[V any](before, now map[string]V) (names []string) {
	for _, name := range slices.Sorted(maps.Keys(now)) {
		if _, has := before[name]; !has {
			names = append(names, name)
		}
	}
	return names
}

func (t *transaction) addSet(table *nftables.Table, name string, kind setKind) {
	t.changes++
	t.setID++
	s := &nftables.Set{
		Table:         table,
		ID:            t.setID,
		Name:          name,
		KeyType:       keyTypes[kind.key],
		Concatenation: strings.Contains(kind.key, " ") || kind.key == "port",
		Interval:      kind.interval,
		IsMap:         kind.verdicts,
	}
	if kind.key == "ifname" {
		// For nft(8), which would list names as empty.
		s.KeyByteOrder = binaryutil.NativeEndian
	}
	if kind.verdicts {
		s.DataType = nftables.TypeVerdict
	}
	t.keep(t.AddSet(s, nil))
}

func (t *transaction) addChain(table *nftables.Table, name string, c *chain) {
	t.changes++
	n := &nftables.Chain{Table: table, Name: name}
	if c.hook != nil {
		n.Type = nftables.ChainTypeFilter
		n.Hooknum = c.hook
		n.Priority = &c.priority
	}
	t.AddChain(n)
}

func (t *transaction) updateRules(table *nftables.Table, name string, before, now *chain) {
	if before != nil && before.text == now.text {
		return
	}

	t.changes++
	c := &nftables.Chain{Table: table, Name: name}
	if before != nil {
		t.FlushChain(c)
	}
	for _, r := range now.rules {
		t.AddRule(&nftables.Rule{Table: table, Chain: c, Exprs: r})
	}
}

// updateElements deletes and adds elements, in messages that are not too large. Intervals depend on each
// other's ends, and are all written again.
func (t *transaction) updateElements(table *nftables.Table, name string, before, now *set) {
	if before == nil {
		before = &set{kind: now.kind}
	}
	gone, come := differences(before, now), differences(now, before)
	if len(gone)+len(come) == 0 {
		return
	}

	s := &nftables.Set{Table: table, Name: name, IsMap: now.kind.verdicts}
	if now.kind.interval && len(before.elements) > 0 {
		t.changes++
		t.FlushSet(s)
		gone, come = nil, slices.Collect(maps.Keys(now.elements))
	}
	for part := range slices.Chunk(before.list(gone), maxElements) {
		t.changes++
		t.keep(t.SetDeleteElements(s, part))
	}
	for part := range slices.Chunk(now.list(come), maxElements) {
		t.changes++
		t.keep(t.SetAddElements(s, part))
	}
}

// differences returns the keys of elements that the other set does not have as they are.
func differences(s, other *set) (keys []string) {
	for key, e := range s.elements {
		if o, has := other.elements[key]; !has || o != e {
			keys = append(keys, key)
		}
	}
	return keys
}

// remove removes the chains and sets that are not wanted any more.
func (t *transaction) remove(before, now *layout) {
	chains, sets := missing(now.chains, before.chains), missing(now.sets, before.sets)
	t.changes += len(chains) + len(sets)
	for _, name := range chains {
		t.FlushChain(&nftables.Chain{Table: now.table, Name: name})
	}
	// Elements lead to chains.
	for _, name := range sets {
		t.DelSet(&nftables.Set{Table: now.table, Name: name})
	}
	for _, name := range chains {
		t.DelChain(&nftables.Chain{Table: now.table, Name: name})
	}
}
