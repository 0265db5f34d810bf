// Soon after each start the Go runtime would look whether its share of the processors has changed, and stop
// all goroutines for it: in a process of a few milliseconds, a twentieth of them.
//
//go:debug updatemaxprocs=0

// Command trivet-cni is a CNI plugin: bridge, addresses, masquerading and host ports in one call, and
// upstream's plugins by their names.
package main

import (
	"flag"
	"fmt"
	"os"
	"runtime/debug"
	"syscall"

	"github.com/trivet-node/trivet/cni/install"
	"github.com/trivet-node/trivet/cni/plugin"
	_ "github.com/trivet-node/trivet/cni/prefault"
	"github.com/trivet-node/trivet/internal/program"
)

const help = `trivet-cni connects containers to a Linux bridge: veth pair, addresses, routes, masquerading
and host ports by netlink and nftables, in one process. It is a CNI 1.1 plugin (ADD, DEL, CHECK, GC,
STATUS, VERSION; configurations of version 0.1.0 to 1.1.0). A container runtime calls it with the
operation in the environment (CNI_COMMAND, CNI_CONTAINERID, CNI_NETNS, CNI_IFNAME, CNI_ARGS, CNI_PATH)
and the network's configuration on standard input.

Put it into the plugin directory (/opt/cni/bin) and a network into /etc/cni/net.d, e.g. 10-trivet.conflist:

  {"cniVersion": "1.1.0", "name": "trivet", "plugins": [{
    "type": "trivet-cni", "bridge": "trivet0", "isDefaultGateway": true, "ipMasq": true, "hostRouted": true,
    "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.244.0.0/24"}]], "bootScoped": true},
    "capabilities": {"portMappings": true, "ipRanges": true, "ips": true, "mac": true, "bandwidth": true}
  }]}

Called by the name of one of upstream's plugins (bridge, ptp, loopback, host-local, static, portmap,
firewall, bandwidth, tuning, sbr) it is that plugin, with the same configuration keys. docs/cni.md
describes all of them.

  install --dir DIR    put the program into DIR and have those names lead to it; what was there is kept
  uninstall --dir DIR  put back what was there
  --version            print the version
  --help               print this
`

func main() {
	// The process ends within milliseconds; collecting garbage would only delay it.
	debug.SetGCPercent(-1)
	syscall.Umask(program.Umask)

	// A runtime gives the operation in the environment, a person gives an argument.
	if os.Getenv("CNI_COMMAND") == "" && len(os.Args) > 1 {
		os.Exit(answer(os.Args[1:]))
	}

	about := "trivet-cni " + program.Version + ": a CNI plugin, see trivet-cni --help"
	os.Exit(plugin.Main(about))
}

// answer serves a person and returns the exit code.
func answer(arguments []string) int {
	switch arguments[0] {
	case "install", "uninstall":
		return change(arguments[0], arguments[1:])
	case "--version", "-version", "version":
		fmt.Println("trivet-cni", program.Version)
	case "--help", "-help", "-h", "help":
		fmt.Print(help)
	default:
		fmt.Fprintf(os.Stderr, "trivet-cni: unknown argument %q; see trivet-cni --help\n", arguments[0])
		return program.ExitUsage
	}
	return 0
}

// change puts the program into a directory of plugins, or takes it out, and returns the exit code.
func change(verb string, arguments []string) int {
	flags := flag.NewFlagSet("trivet-cni "+verb, flag.ContinueOnError)
	dir := flags.String("dir", "", "directory of CNI plugins, such as /opt/cni/bin")
	if err := flags.Parse(arguments); err != nil {
		return program.ExitUsage
	}
	if *dir == "" || flags.NArg() > 0 {
		fmt.Fprintf(os.Stderr, "trivet-cni %s: --dir says where, and there are no other arguments\n", verb)
		return program.ExitUsage
	}

	d := install.Directory{Path: *dir, Program: "trivet-cni"}
	do := func() error { return d.Uninstall(plugin.Names()) }
	if verb == "install" {
		do = func() error { return d.Install("/proc/self/exe", plugin.Names()) }
	}
	if err := do(); err != nil {
		fmt.Fprintf(os.Stderr, "trivet-cni %s: %v\n", verb, err)
		return 1
	}

	return 0
}
