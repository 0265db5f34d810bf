package rtnl

import (
	"bytes"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/cni/netlink"
)

// Handles of queueing disciplines (tc(8)).
const (
	handleRoot    = 0xffffffff
	parentIngress = 0xfffffff1
	placeIngress  = 0xfffffff2
	handleIngress = 0xffff0000
	handleOne     = 0x00010000
)

// Attributes of <linux/pkt_sched.h>, <linux/pkt_cls.h> (TCA_BPF_FLAG_ACT_DIRECT among them) and
// <linux/tc_act/tc_mirred.h> that package unix does not have.
const (
	tcaKind    = 1
	tcaOptions = 2

	tcaTBFParms  = 1
	tcaTBFRate64 = 4

	tcaU32ClassID = 1
	tcaU32Sel     = 5
	tcaU32Act     = 7

	tcaActKind     = 1
	tcaActOptions  = 2
	tcaMirredParms = 2

	tcaBPFOpsLen          = 4
	tcaBPFOps             = 5
	tcaBPFFlags           = 8
	tcaBPFReturnsAVerdict = 1

	tcActStolen    = 4
	egressRedirect = 1
)

// TokenBucket is a queueing discipline that bounds what leaves by an interface (tc-tbf(8)).
type TokenBucket struct {
	// Rate is in bytes per second.
	Rate uint64
	// Limit is how many bytes may wait.
	Limit uint32
	// Buffer is how long the burst takes at Rate, in ticks of the kernel's packet scheduler.
	Buffer uint32
}

// tcmsg returns a struct tcmsg.
func tcmsg(index int, handle, parent, info uint32) []byte {
	header := make([]byte, 20)
	native.PutUint32(header[4:], uint32(index))
	native.PutUint32(header[8:], handle)
	native.PutUint32(header[12:], parent)
	native.PutUint32(header[16:], info)
	return header
}

// NewTokenBucket gives an interface a token bucket as its root discipline.
func NewTokenBucket(index int, b TokenBucket) *netlink.Message {
	op := fmt.Sprintf("add token bucket to interface %d (sch_tbf)", index)
	m := netlink.NewMessage(op, unix.RTM_NEWQDISC, netlink.Create|netlink.Excl,
		tcmsg(index, handleOne, handleRoot, 0))
	m.String(tcaKind, "tbf").Nest(tcaOptions).Bytes(tcaTBFParms, b.parms())

	// The rate of the parameters has 32 bits.
	if b.Rate > 0xffffffff {
		m.Bytes(tcaTBFRate64, native.AppendUint64(nil, b.Rate))
	}

	return m.End()
}

// parms returns a struct tc_tbf_qopt: two struct tc_ratespec, limit, buffer and mtu.
func (b TokenBucket) parms() []byte {
	const ratespec, overall = 12, 36
	parms := make([]byte, overall)
	native.PutUint32(parms[8:], uint32(min(b.Rate, 0xffffffff)))
	native.PutUint32(parms[2*ratespec:], b.Limit)
	native.PutUint32(parms[2*ratespec+4:], b.Buffer)
	return parms
}

// TokenBucketOf reads the token bucket of an interface; ok is false when its root is something else.
func (c *Conn) TokenBucketOf(index int) (b TokenBucket, ok bool, err error) {
	op := fmt.Sprintf("list queueing disciplines of interface %d", index)
	m := netlink.NewMessage(op, unix.RTM_GETQDISC, 0, tcmsg(index, 0, 0, 0))
	err = c.Dump(m, func(_ uint16, body []byte) {
		// Older kernels list those of all interfaces.
		if len(body) < 20 || int(native.Uint32(body[4:])) != index || native.Uint32(body[12:]) != handleRoot {
			return
		}
		if found, is := parseTokenBucket(body[20:]); is {
			b = found
			ok = true
		}
	})
	return b, ok, err
}

func parseTokenBucket(data []byte) (b TokenBucket, ok bool) {
	netlink.Attributes(data, func(kind uint16, value []byte) {
		switch kind {
		case tcaKind:
			ok = netlink.Text(value) == "tbf"
		case tcaOptions:
			b = parseTokenBucketOptions(value)
		}
	})
	return b, ok
}

func parseTokenBucketOptions(data []byte) (b TokenBucket) {
	netlink.Attributes(data, func(kind uint16, value []byte) {
		switch {
		case kind == tcaTBFParms && len(value) >= 32:
			b.Rate = max(b.Rate, uint64(native.Uint32(value[8:])))
			b.Limit = native.Uint32(value[24:])
			b.Buffer = native.Uint32(value[28:])
		case kind == tcaTBFRate64 && len(value) == 8:
			b.Rate = native.Uint64(value)
		}
	})
	return b
}

// Discipline is one that has a place for filters of what comes in by an interface, which has one of them at
// most.
type Discipline string

// The disciplines of sch_ingress. That of Both has a place for filters of what leaves, too.
const (
	Ingress Discipline = "ingress"
	Both    Discipline = "clsact"
)

// NewIngress gives an interface a discipline of sch_ingress. The kernel says that it exists if the interface
// has either of them.
func NewIngress(index int, d Discipline) *netlink.Message {
	op := fmt.Sprintf("add discipline %s to interface %d (sch_ingress)", d, index)
	return netlink.NewMessage(op, unix.RTM_NEWQDISC, netlink.Create|netlink.Excl,
		tcmsg(index, handleIngress, parentIngress, 0)).String(tcaKind, string(d))
}

// The order of filters: a program decides before anything is led elsewhere.
const (
	programFirst = 1 << 16
	redirectNext = 2 << 16
)

// everyProtocol is ETH_P_ALL in network byte order.
var everyProtocol = uint32(native.Uint16([]byte{0, unix.ETH_P_ALL}))

// NewProgram has what comes in by an interface, which has an ingress discipline, pass a program of classic
// BPF, an array of struct sock_filter that returns a verdict (TC_ACT).
func NewProgram(index int, instructions []byte) *netlink.Message {
	const instructionSize = 8
	op := fmt.Sprintf("add filter to interface %d (cls_bpf)", index)
	m := netlink.NewMessage(op, unix.RTM_NEWTFILTER, netlink.Create|netlink.Excl,
		tcmsg(index, 0, placeIngress, programFirst|everyProtocol))
	m.String(tcaKind, "bpf").Nest(tcaOptions)
	m.Uint16(tcaBPFOpsLen, uint16(len(instructions)/instructionSize))
	m.Bytes(tcaBPFOps, instructions)
	m.Uint32(tcaBPFFlags, tcaBPFReturnsAVerdict)
	return m.End()
}

// ProgramOf reads the program that what comes in by an interface passes first, nil for none.
func (c *Conn) ProgramOf(index int) (instructions []byte, err error) {
	err = eachFilter(c, index, func(kind string, options []byte) {
		if kind != "bpf" || instructions != nil {
			return
		}
		netlink.Attributes(options, func(attribute uint16, value []byte) {
			if attribute == tcaBPFOps {
				instructions = bytes.Clone(value)
			}
		})
	})
	return instructions, err
}

// eachFilter calls visit with the filters of what comes in by an interface.
func eachFilter(c *Conn, index int, visit func(kind string, options []byte)) error {
	op := fmt.Sprintf("list filters of interface %d", index)
	m := netlink.NewMessage(op, unix.RTM_GETTFILTER, 0, tcmsg(index, 0, placeIngress, 0))
	return c.Dump(m, func(_ uint16, body []byte) {
		if len(body) < 20 || int(native.Uint32(body[4:])) != index {
			return
		}

		var kind string
		var options []byte
		netlink.Attributes(body[20:], func(attribute uint16, value []byte) {
			switch attribute {
			case tcaKind:
				kind = netlink.Text(value)
			case tcaOptions:
				options = value
			}
		})
		visit(kind, options)
	})
}

// NewRedirect makes all that comes in by an interface, which has an ingress discipline, leave by another one.
func NewRedirect(from, to int) *netlink.Message {
	const (
		terminal  = 1
		firstRule = 1
	)

	op := fmt.Sprintf("redirect interface %d to interface %d (cls_u32, act_mirred)", from, to)
	m := netlink.NewMessage(op, unix.RTM_NEWTFILTER, netlink.Create|netlink.Excl,
		tcmsg(from, 0, placeIngress, redirectNext|everyProtocol))
	m.String(tcaKind, "u32").Nest(tcaOptions)
	m.Uint32(tcaU32ClassID, handleOne|1)

	// A struct tc_u32_sel with one key that every packet matches.
	selector := make([]byte, 32)
	selector[0] = terminal
	selector[2] = 1
	m.Bytes(tcaU32Sel, selector)

	// A struct tc_mirred: index, capab, action, two counters, what to do, where to.
	mirred := make([]byte, 28)
	native.PutUint32(mirred[8:], tcActStolen)
	native.PutUint32(mirred[20:], egressRedirect)
	native.PutUint32(mirred[24:], uint32(to))
	m.Nest(tcaU32Act).Nest(firstRule).String(tcaActKind, "mirred")
	m.Nest(tcaActOptions).Bytes(tcaMirredParms, mirred).End()

	return m.End().End().End()
}

// DeleteRedirect removes what NewRedirect adds.
func DeleteRedirect(from int) *netlink.Message {
	op := fmt.Sprintf("delete redirection of interface %d", from)
	return netlink.NewMessage(op, unix.RTM_DELTFILTER, 0,
		tcmsg(from, 0, placeIngress, redirectNext|everyProtocol)).String(tcaKind, "u32")
}

// HasRedirect reports whether an interface has a filter of what comes in, beside a program.
func (c *Conn) HasRedirect(from int) (found bool, err error) {
	err = eachFilter(c, from, func(kind string, _ []byte) { found = found || kind != "bpf" })
	return found, err
}

// DeleteTokenBucket removes the root discipline of an interface.
func DeleteTokenBucket(index int) *netlink.Message {
	op := fmt.Sprintf("delete root discipline of interface %d", index)
	return netlink.NewMessage(op, unix.RTM_DELQDISC, 0, tcmsg(index, handleOne, handleRoot, 0))
}

// DeleteIngress removes the ingress discipline of an interface, with its filters.
func DeleteIngress(index int) *netlink.Message {
	op := fmt.Sprintf("delete ingress discipline of interface %d", index)
	return netlink.NewMessage(op, unix.RTM_DELQDISC, 0, tcmsg(index, handleIngress, parentIngress, 0))
}
