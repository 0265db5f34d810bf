package nft

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
)

// maxName keeps the name of a table within the kernel's 255 bytes.
const maxName = 200

// TableName returns the name of a network's table, in a form that nft(8) can write. Networks whose names had
// to be changed are told apart by a hash.
func TableName(prefix, network string) string {
	clean := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '_' {
			return r
		}

		return '_'
	}, network)

	clean = clean[:min(len(clean), maxName)]
	if clean == network {
		return prefix + network
	}

	sum := sha256.Sum256([]byte(network))
	return prefix + clean + "_" + hex.EncodeToString(sum[:4])
}
