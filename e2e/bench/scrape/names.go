package main

import (
	_ "embed"
	"strings"
)

//go:embed mixin.txt
var mixin string

// mixinNames are the families that the kubernetes mixin names, in their order.
func mixinNames() []string {
	var names []string
	for line := range strings.Lines(mixin) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
			names = append(names, line)
		}
	}
	return names
}
