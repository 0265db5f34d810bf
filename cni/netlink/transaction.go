package netlink

import (
	"errors"
	"slices"

	"golang.org/x/sys/unix"
)

// Transact sends messages of nftables as one transaction, of which the kernel does all or nothing. It returns
// what was refused, joined.
func (c *Conn) Transact(messages ...*Message) error {
	if len(messages) == 0 {
		return nil
	}

	first := c.seq + 1
	last := len(messages)
	batch := slices.Concat(
		[]*Message{border(unix.NFNL_MSG_BATCH_BEGIN)}, messages, []*Message{border(unix.NFNL_MSG_BATCH_END)})
	if err := c.sendAll(batch, last); err != nil {
		return err
	}

	// What refuses the whole answers its beginning, and nothing else.
	errs, err := c.answers(first, batch, func(i int) bool { return i == 0 || i == last })
	return errors.Join(append(errs, err)...)
}

// border is a message that begins or ends a transaction.
func border(kind uint16) *Message {
	header := []byte{unix.AF_UNSPEC, unix.NFNETLINK_V0, 0, unix.NFNL_SUBSYS_NFTABLES}
	return NewMessage("write nftables transaction", kind, 0, header)
}
