// Package conntracktest makes connections that the kernel tracks, for tests.
package conntracktest

import (
	"errors"
	"fmt"
	"net"
)

// Send sends a datagram to each of some ports of the host that it is called on, by 127.0.0.1.
func Send(ports ...uint16) error {
	for _, port := range ports {
		c, err := net.Dial("udp4", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			return err
		}

		_, err = c.Write([]byte("x"))
		if err := errors.Join(err, c.Close()); err != nil {
			return err
		}
	}
	return nil
}
