// Package maintainer writes the maintainer scripts of a package with a service (Debian Policy 6 and 9.3.3). A
// script may be run again after it was killed at any line. An upgrade restarts the service, a removal stops
// it, and a purge takes away what the part says.
package maintainer

import (
	_ "embed"
	"fmt"
	"strings"

	"github.com/trivet-node/trivet/release/part"
)

// The scripts, in which PACKAGE, UNIT, and lines ENABLE, START, BEFORE_REMOVAL, REMEMBER, FORGET and PURGE
// stand for those of a part.
var (
	//go:embed scripts/postinst
	postinst string

	//go:embed scripts/prerm
	prerm string

	//go:embed scripts/postrm
	postrm string
)

// Scripts are the scripts of a part by their names.
func Scripts(p part.Part) map[string]string {
	all := map[string]string{"postinst": postinst, "prerm": prerm, "postrm": postrm}
	for name, script := range all {
		all[name] = complete(script, p)
	}
	return all
}

func complete(script string, p part.Part) string {
	enable := fmt.Sprintf("deb-systemd-helper enable %s >/dev/null || true", p.Service.Unit)
	start := []string{
		`if [ -n "$2" ]; then action=restart; else action=start; fi`,
		fmt.Sprintf("deb-systemd-invoke $action %s >/dev/null || true", p.Service.Unit),
	}
	var remember, forget []string
	if p.Service.Manual {
		enable = ": the administrator enables it"
		start = []string{
			"# deb-systemd-invoke would start what is enabled, and so stop what conflicts with it.",
			`[ -z "$2" ] || systemctl try-restart UNIT >/dev/null || true`,
			"if [ -e /run/PACKAGE.ran ]; then",
			"\tsystemctl start UNIT >/dev/null || true",
			"\trm -f /run/PACKAGE.ran",
			"fi",
		}
		remember = []string{
			"# For a removal that is aborted: nobody else knows then that it ran.",
			"if systemctl --quiet is-active UNIT; then : > /run/PACKAGE.ran; fi",
		}
		forget = []string{"rm -f /run/PACKAGE.ran"}
	}

	blocks := map[string][]string{
		"ENABLE":         {enable},
		"START":          start,
		"BEFORE_REMOVAL": p.Service.BeforeRemoval,
		"REMEMBER":       remember,
		"FORGET":         forget,
		"PURGE":          p.Service.Purge,
	}

	names := strings.NewReplacer("PACKAGE", p.Name, "UNIT", p.Service.Unit)
	var out strings.Builder
	for line := range strings.Lines(script) {
		indent := line[:len(line)-len(strings.TrimLeft(line, "\t"))]
		block, ok := blocks[strings.TrimSpace(line)]
		if !ok {
			out.WriteString(names.Replace(line))
			continue
		}

		for _, command := range block {
			fmt.Fprintf(&out, "%s%s\n", indent, names.Replace(command))
		}
	}
	return out.String()
}
