package main

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/containernetworking/cni/libcni"
)

func TestCasesAreConfigurationsThatLibcniReads(t *testing.T) {
	for _, c := range cases {
		for text, extra := range map[string]string{c.ours: bootScoped, c.upstream: ""} {
			if text == "" {
				continue
			}
			list, err := libcni.ConfListFromBytes(fmt.Appendf(nil, text, "/data", extra))
			if err != nil {
				t.Errorf("%s: %v", c.name, err)
				continue
			}

			mapsPorts := slices.ContainsFunc(list.Plugins, func(p *libcni.PluginConfig) bool {
				return p.Network.Capabilities["portMappings"]
			})
			if mapsPorts != (c.ports > 0) {
				t.Errorf("%s: maps host ports %v, want %d ports: %s", c.name, mapsPorts, c.ports, text)
			}
		}
	}
}

func TestQuantilesAreTakenFromWhatWasMeasured(t *testing.T) {
	var all []time.Duration
	for i := range 20 {
		all = append(all, time.Duration(20-i)*time.Millisecond)
	}
	if p50, p95 := quantile(all, 50), quantile(all, 95); p50 != 11*time.Millisecond ||
		p95 != 20*time.Millisecond {
		t.Errorf("median %v, 95 %% %v", p50, p95)
	}
	if got := quantile(all[:1], 95); got != 20*time.Millisecond {
		t.Errorf("of one: %v", got)
	}
}
