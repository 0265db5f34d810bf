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

// read lists the sockets of a protocol by /proc/net. It does not report whether one of :: takes IPv4 too:
// most do.
func read(protocol string) (found []socket, err error) {
	files, parse := []string{protocol, protocol + "6"}, parseInet
	if protocol == "sctp" {
		files, parse = []string{"sctp/eps"}, parseSCTP
	}

	for _, file := range files {
		data, err := os.ReadFile(filepath.Join("/proc/thread-self/net", file))
		if errors.Is(err, os.ErrNotExist) {
			// the kernel has not the protocol, and so nobody listens
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
	raw, err := hex.DecodeString(host)
	number, err2 := strconv.ParseUint(port, 16, 16)
	if err != nil || err2 != nil || len(raw)%4 != 0 {
		return nil
	}

	// each is a number of 32 bits, lowest byte last
	for word := range slices.Chunk(raw, 4) {
		slices.Reverse(word)
	}

	address, ok := netip.AddrFromSlice(raw)
	if !ok {
		return nil
	}

	s := socket{address: netip.AddrPortFrom(address.Unmap(), uint16(number))}
	s.uid, s.inode = number32(words[7]), number32(words[9])
	return []socket{s}
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
		if address, err := netip.ParseAddr(word); err == nil {
			s := socket{address: netip.AddrPortFrom(address.Unmap(), uint16(port))}
			s.uid, s.inode = number32(words[6]), number32(words[7])
			found = append(found, s)
		}
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

// search bounds the look for a socket's process: processes may have a million descriptors.
const search = 2 * time.Second

// owner names a process that has the socket. It is looked for only when a port is refused.
func owner(s socket) string {
	wanted, deadline := fmt.Sprintf("socket:[%d]", s.inode), time.Now().Add(search)
	processes, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range processes {
		name, ok := holder(dir, wanted, deadline)
		if ok {
			return name
		}
		if time.Now().After(deadline) {
			break
		}
	}

	return fmt.Sprintf("a process of user %d", s.uid)
}

func holder(dir, socket string, deadline time.Time) (string, bool) {
	fds, err := os.Open(dir + "/fd")
	if err != nil {
		// it has ended
		return "", false
	}

	defer func() { _ = fds.Close() }()

	for time.Now().Before(deadline) {
		names, err := fds.Readdirnames(1000)
		for _, name := range names {
			if target, err := os.Readlink(dir + "/fd/" + name); err == nil && target == socket {
				command, _ := os.ReadFile(dir + "/comm")
				return fmt.Sprintf("process %s (%s)", filepath.Base(dir), strings.TrimSpace(string(command))),
					true
			}
		}

		if err != nil {
			break
		}
	}

	return "", false
}
