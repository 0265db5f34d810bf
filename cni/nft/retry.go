package nft

import (
	"errors"
	"fmt"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Begin returns what collects the changes of a transaction, which the kernel answers with more than a number
// where it refuses one.
func Begin() (*nftables.Conn, error) {
	return nftables.New(nftables.WithSockOptions(func(c *netlink.Conn) error {
		err := c.SetOption(netlink.ExtendedAcknowledge, true)
		if errors.Is(err, unix.ENOPROTOOPT) {
			return nil
		}
		return err
	}))
}

// IsRace reports whether the kernel refused a transaction because another process had made what it makes
// (EEXIST) or deleted what it deletes (ENOENT), or had changed anything since the generation that it is for
// (ERESTART).
func IsRace(err error) bool {
	return errors.Is(err, unix.EEXIST) || errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ERESTART)
}

// tries bounds how often a transaction is put together again because another process was faster.
const tries = 20

// Retry calls transact, which reads and then writes, again after a race.
func Retry(transact func() error) (err error) {
	for range tries {
		if err = transact(); err == nil || !IsRace(err) {
			return err
		}
	}
	return fmt.Errorf("others keep changing the table: %w", err)
}
