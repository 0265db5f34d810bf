package conf_test

import (
	"fmt"
	"strings"
	"testing"
)

func TestAHostIPHasNoZone(t *testing.T) {
	const mapping = `{"hostPort":80,"containerPort":1,"hostIP":"fe80::1%eth0 drop"}`
	_, err := read(`{"name":"n","runtimeConfig":{"portMappings":[`+mapping+`]}}`, "")
	if err == nil || !strings.Contains(err.Error(), "zone") {
		t.Error(err)
	}
}

func TestOneHostPortLeadsToOneContainerPort(t *testing.T) {
	const (
		each = ""
		all4 = `,"hostIP":"0.0.0.0"`
		all6 = `,"hostIP":"::"`
		one  = `,"hostIP":"10.0.0.1"`
		two  = `,"hostIP":"10.0.0.2"`
		udp  = `,"protocol":"udp"`
	)

	port := func(container int, more string) string {
		return fmt.Sprintf(`{"hostPort":80,"containerPort":%d%s}`, container, more)
	}

	for _, c := range []struct {
		first, second string
		// 0 means that the second is refused.
		remain int
	}{
		{port(1, each), port(2, each), 0},
		{port(1, each), port(2, all4), 0},
		{port(1, all6), port(2, each), 0},
		{port(1, one), port(2, one), 0},
		{port(1, each), port(1, each), 1},
		{port(1, each), port(2, udp), 2},
		{port(1, all4), port(2, all6), 2},
		{port(1, one), port(2, two), 2},
		{port(1, one), port(2, each), 2},
	} {
		mappings := c.first + "," + c.second
		n, err := read(`{"name":"n","runtimeConfig":{"portMappings":[`+mappings+`]}}`, "")
		if c.remain > 0 {
			if err != nil || len(n.Runtime.Ports) != c.remain {
				t.Errorf("%s: %+v, %v", mappings, n, err)
			}

			continue
		}

		if err == nil || !strings.Contains(err.Error(), "container port 1") ||
			!strings.Contains(err.Error(), "container port 2") {
			t.Errorf("%s: %v", mappings, err)
		}
	}
}
