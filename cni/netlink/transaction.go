package netlink

import (
	"encoding/binary"
	"errors"
	"slices"

	"golang.org/x/sys/unix"
)

// Transact sends messages of nftables as one transaction, of which the kernel does all or nothing. It returns
// what was refused, joined.
func (c *Conn) Transact(messages ...*Message) error { return c.TransactIn(anyGeneration, messages...) }

// anyGeneration is the number of none.
const anyGeneration = 0

// TransactIn is Transact if there was no other transaction in the network namespace since the one that has
// begun a generation; else the kernel refuses it as a whole (ERESTART). So what was read in that generation
// is still so.
func (c *Conn) TransactIn(generation uint32, messages ...*Message) error {
	if len(messages) == 0 {
		return nil
	}

	first := c.seq + 1
	last := len(messages)
	batch := slices.Concat(
		[]*Message{begin(generation)}, messages, []*Message{border(unix.NFNL_MSG_BATCH_END)})
	if err := c.sendAll(batch, last); err != nil {
		return err
	}

	// What refuses the whole answers its beginning, and nothing else.
	ignore := func(int, uint16, []byte) {}
	errs, err := c.answers(first, batch, ignore, func(i int) bool { return i == 0 || i == last })
	return errors.Join(append(errs, err)...)
}

// batchGeneration is NFNL_BATCH_GENID of <linux/netfilter/nfnetlink.h>.
const batchGeneration = 1

// begin is the message that begins a transaction in a generation.
func begin(generation uint32) *Message {
	m := border(unix.NFNL_MSG_BATCH_BEGIN)
	if generation == anyGeneration {
		return m
	}
	return m.Bytes(batchGeneration, binary.BigEndian.AppendUint32(nil, generation))
}

// border is a message that begins or ends a transaction.
func border(kind uint16) *Message {
	header := []byte{unix.AF_UNSPEC, unix.NFNETLINK_V0, 0, unix.NFNL_SUBSYS_NFTABLES}
	return NewMessage("write nftables transaction", kind, 0, header)
}
