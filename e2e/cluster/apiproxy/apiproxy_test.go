package apiproxy

import "testing"

func TestProxiesAreKnownByTheirCommandLine(t *testing.T) {
	const state = "/checkout/.trivet"
	for cmdline, want := range map[string]string{
		"/bin/trivet-cluster\x00api-proxy\x00/checkout/.trivet\x004711\x00":     "4711",
		"/bin/trivet-cluster\x00api-proxy\x00/checkout/.trivet/e2e\x004711\x00": "",
		"/bin/trivet-cluster\x00up\x00--dir=/checkout/.trivet\x00":              "",
		"": "",
	} {
		port, isProxy := portOf(cmdline, state)
		if port != want || isProxy != (want != "") {
			t.Errorf("%q: port %q, proxy %v; want %q", cmdline, port, isProxy, want)
		}
	}
}

func TestFreePortIsOne(t *testing.T) {
	port, err := FreePort()
	if err != nil || port <= 0 {
		t.Errorf("port %d, %v", port, err)
	}
}
