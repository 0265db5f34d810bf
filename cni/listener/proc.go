package listener

import (
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// readProc lists the sockets of a protocol by /proc/net. That does not say whether a socket on :: takes IPv4
// too: most do.
func readProc(protocol string) (found []socket, err error) {
	files := []string{protocol, protocol + "6"}
	parse := parseInet
	if protocol == "sctp" {
		files = []string{"sctp/eps"}
		parse = parseSCTP
	}

	for _, file := range files {
		data, err := os.ReadFile(filepath.Join("/proc/thread-self/net", file))
		// The kernel does not have the protocol, so nobody listens.
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}

		for line := range strings.Lines(string(data)) {
			found = append(found, parse(strings.Fields(line))...)
		}
	}

	return found, nil
}

// parseInet reads "sl local_address rem_address st tx:rx tr:tm retrnsmt uid timeout inode" of proc(5).
func parseInet(words []string) []socket {
	if len(words) < 10 || words[3] != "0A" && words[3] != "07" {
		return nil
	}

	host, port, _ := strings.Cut(words[1], ":")
	raw, hostErr := hex.DecodeString(host)
	number, portErr := strconv.ParseUint(port, 16, 16)
	if hostErr != nil || portErr != nil || len(raw)%4 != 0 {
		return nil
	}

	// Each word is a number of 32 bits, lowest byte last.
	for word := range slices.Chunk(raw, 4) {
		slices.Reverse(word)
	}

	address, ok := netip.AddrFromSlice(raw)
	if !ok {
		return nil
	}

	return []socket{{
		address: netip.AddrPortFrom(address.Unmap(), uint16(number)),
		uid:     number32(words[7]),
		inode:   number32(words[9]),
	}}
}

// parseSCTP reads "ENDPT SOCK STY SST HBKT LPORT UID INODE LADDRS...": one socket for each address.
func parseSCTP(words []string) (found []socket) {
	if len(words) < 9 {
		return nil
	}

	port, err := strconv.ParseUint(words[5], 10, 16)
	if err != nil {
		return nil
	}

	for _, word := range words[8:] {
		address, err := netip.ParseAddr(word)
		if err != nil {
			continue
		}

		found = append(found, socket{
			address: netip.AddrPortFrom(address.Unmap(), uint16(port)),
			uid:     number32(words[6]),
			inode:   number32(words[7]),
		})
	}

	return found
}

func number32(word string) uint32 {
	n, err := strconv.ParseUint(word, 10, 32)
	if err != nil {
		return 0
	}
	return uint32(n)
}

// searchTimeout bounds the search for a socket's process: processes may have a million descriptors.
const searchTimeout = 2 * time.Second

// owner names a process that has the socket, for the error about a port that is taken.
func owner(s socket) string {
	wanted := fmt.Sprintf("socket:[%d]", s.inode)
	deadline := time.Now().Add(searchTimeout)
	processes, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range processes {
		if holds(dir, wanted, deadline) {
			command, _ := os.ReadFile(dir + "/comm")
			return fmt.Sprintf("process %s (%s)", filepath.Base(dir), strings.TrimSpace(string(command)))
		}

		if time.Now().After(deadline) {
			break
		}
	}

	return fmt.Sprintf("a process of user %d", s.uid)
}

// holds reports whether the process of a directory of /proc has the socket open. One that has ended does not.
func holds(dir, socket string, deadline time.Time) bool {
	fds, err := os.Open(dir + "/fd")
	if err != nil {
		return false
	}
	defer func() { _ = fds.Close() }()

	for time.Now().Before(deadline) {
		names, err := fds.Readdirnames(1000)
		for _, name := range names {
			if target, err := os.Readlink(dir + "/fd/" + name); err == nil && target == socket {
				return true
			}
		}

		if err != nil {
			break
		}
	}

	return false
}
