package network

import (
	"strings"
	"testing"
)

func TestCachedConfigurationOfOnePluginIsAListOfOne(t *testing.T) {
	const plugin = `{"cniVersion":"1.0.0","name":"net","type":"bridge","mtu":1400}`
	const list = `{"cniVersion":"1.0.0","name":"net","plugins":[` + plugin + `]}`
	for _, config := range []string{plugin, list} {
		got, err := cachedList([]byte(config))
		if err != nil {
			t.Fatalf("%s: %v", config, err)
		}
		if got.Name != "net" || got.CNIVersion != "1.0.0" || len(got.Plugins) != 1 {
			t.Fatalf("%s: list %s of version %s with %d plugins", config, got.Name, got.CNIVersion,
				len(got.Plugins))
		}

		only := got.Plugins[0]
		if only.Network.Type != "bridge" || !strings.Contains(string(only.Bytes), `"mtu":1400`) {
			t.Errorf("%s: plugin %s", config, only.Bytes)
		}
	}

	if _, err := cachedList([]byte(`{"cniVersion":"1.0.0","name":"net"}`)); err == nil {
		t.Error("a configuration without a plugin is taken")
	}
}
