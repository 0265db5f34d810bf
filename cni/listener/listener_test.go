package listener

import (
	"net/netip"
	"os"
	"path/filepath"
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

func TestEndpointsOfSCTPAreReadFromProc(t *testing.T) {
	line := " ffff88017e0a0200 ffff880296593480 2   10  29    11165  200  299761689 10.0.0.102 fd00::7"
	found := parseSCTP(strings.Fields(line))
	if len(found) != 2 || found[0].address.String() != "10.0.0.102:11165" ||
		found[1].address.String() != "[fd00::7]:11165" ||
		found[0].inode != 299761689 || found[0].uid != 200 {
		t.Errorf("%+v", found)
	}
	head := " ENDPT     SOCK   STY SST HBKT LPORT   UID INODE LADDRS"
	if found := parseSCTP(strings.Fields(head)); found != nil {
		t.Errorf("the head of the table: %+v", found)
	}
}

func FuzzProc(f *testing.F) {
	if data, err := os.ReadFile(filepath.Clean("/proc/net/tcp6")); err == nil {
		for line := range strings.Lines(string(data)) {
			f.Add(line)
		}
	}

	f.Add("  0: 0100007F:0050 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 12345 1")
	f.Fuzz(func(t *testing.T, line string) {
		for _, s := range append(parseInet(strings.Fields(line)), parseSCTP(strings.Fields(line))...) {
			if !s.address.IsValid() {
				t.Fatalf("%q: %+v", line, s)
			}
		}
	})
}

func FuzzDiag(f *testing.F) {
	f.Add(make([]byte, answerSize))
	f.Fuzz(func(t *testing.T, body []byte) {
		if s, ok := parseDiag(body); ok && !s.address.IsValid() {
			t.Fatalf("%x: %+v", body, s)
		}
	})
}

func BenchmarkRefuse(b *testing.B) {
	ports := []Port{
		{Protocol: "tcp", Address: netip.MustParseAddrPort("0.0.0.0:61")},
		{Protocol: "udp", Address: netip.MustParseAddrPort("0.0.0.0:61")},
	}
	for b.Loop() {
		if err := Refuse(ports); err != nil {
			b.Fatal(err)
		}
	}
}
