// Package bootid reads the identity that the kernel gives to each boot of a machine. State that is written
// down together with it can be told from state of an earlier boot.
package bootid

import (
	"fmt"
	"strings"

	"github.com/trivet-node/trivet/internal/blocking"
)

const path = "/proc/sys/kernel/random/boot_id"

// Read returns the ID of the present boot, a UUID in lower case without a newline (random(4)). It differs
// from that of every earlier boot.
func Read() (string, error) {
	data, err := blocking.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("boot ID: %w", err)
	}
	return strings.TrimSpace(string(data)), nil
}
