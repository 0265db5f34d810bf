package main

import (
	"context"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
)

// The ports and the user of the proxy. What its user sends is not led back to it.
const (
	outboundPort = 15001
	inboundPort  = 15006
	statusPort   = 15020
	proxyUser    = 1337
)

// redirect writes the rules of the pod's network namespace. It may run again: the rules are replaced in one
// transaction.
func redirect(ctx context.Context, ports string) error {
	rules, err := ruleset(ports)
	if err != nil {
		return err
	}

	cmd := exec.CommandContext(ctx, "nft", "-f", "-")
	cmd.Stdin = strings.NewReader(rules)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("redirect the pod's traffic: %w: %s", err, strings.TrimSpace(string(out)))
	}
	return nil
}

// ruleset leads what the pod sends to the outbound port, and what comes to ports to the inbound port. What
// the pod sends to itself goes its way.
func ruleset(ports string) (string, error) {
	var inbound strings.Builder
	for port := range strings.SplitSeq(ports, ",") {
		if port == "" {
			continue
		}

		n, err := strconv.ParseUint(port, 10, 16)
		if err != nil || n == 0 {
			return "", fmt.Errorf("%q is not a port", port)
		}
		fmt.Fprintf(&inbound, "\t\ttcp dport %d redirect to :%d\n", n, inboundPort)
	}

	return fmt.Sprintf(`table inet sidecar
delete table inet sidecar
table inet sidecar {
	chain outbound {
		type nat hook output priority -100;
		oifname "lo" return
		meta skuid %d return
		meta l4proto tcp redirect to :%d
	}
	chain inbound {
		type nat hook prerouting priority -100;
%s	}
}
`, proxyUser, outboundPort, inbound.String()), nil
}
