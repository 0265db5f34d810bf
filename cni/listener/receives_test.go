package listener

import (
	"net/netip"
	"strings"
	"testing"
)

func TestASocketReceivesWhatIsSentToItsAddress(t *testing.T) {
	for _, c := range []struct {
		socket string
		only6  bool
		port   string
		want   bool
	}{
		{"0.0.0.0:80", false, "0.0.0.0:80", true},
		{"0.0.0.0:80", false, "127.0.0.1:80", true},
		{"0.0.0.0:80", false, "0.0.0.0:81", false},
		{"0.0.0.0:80", false, "[::]:80", false},
		{"127.0.0.1:80", false, "0.0.0.0:80", true},
		{"127.0.0.1:80", false, "127.0.0.2:80", false},
		{"[::]:80", false, "0.0.0.0:80", true},
		{"[::]:80", false, "10.0.0.1:80", true},
		{"[::]:80", false, "[::1]:80", true},
		{"[::]:80", true, "0.0.0.0:80", false},
		{"[::]:80", true, "[::]:80", true},
		{"[::1]:80", false, "127.0.0.1:80", false},
	} {
		s := socket{address: netip.MustParseAddrPort(c.socket), only6: c.only6}
		p := Port{Protocol: "tcp", Address: netip.MustParseAddrPort(c.port)}
		if got := s.receives(p); got != c.want {
			t.Errorf("%+v: %v", c, got)
		}
	}
}

func TestASocketIsReadFromALineOfProc(t *testing.T) {
	for line, want := range map[string]string{
		"0: 0100007F:1F90 00000000:0000 0A 0:0 0:0 0 1000 0 4711 1":               "127.0.0.1:8080",
		"0: 00000000000000000000000000000000:0050 0:0 0A 0:0 0:0 0 1000 0 4711 1": "[::]:80",
		"0: 0000000000000000FFFF00000100007F:0050 0:0 0A 0:0 0:0 0 1000 0 4711 1": "127.0.0.1:80",
		// A connection, a line that was cut off, and the head of the table.
		"0: 0100007F:1F90 00000000:0000 01 0:0 0:0 0 1000 0 4711 1": "",
		"0: 0100007F:1F90": "",
		"sl local_address rem_address st tx rx tr tm retr uid": "",
	} {
		found := parseInet(strings.Fields(line))
		if want == "" {
			if len(found) != 0 {
				t.Errorf("%s: %+v", line, found)
			}

			continue
		}

		if len(found) != 1 || found[0].address.String() != want || found[0].inode != 4711 ||
			found[0].uid != 1000 {
			t.Errorf("%s: %+v, want %s", line, found, want)
		}
	}
}
