package callers

import (
	"bytes"
	"context"
	"debug/buildinfo"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/trivet-node/trivet/e2e/machine"
	"github.com/trivet-node/trivet/internal/retry"
)

// plugins is the directory of plugins of a machine, where most callers look for them.
const plugins = "/opt/cni/bin"

// The port of the host that leads to a container, and an address of the host that is not 127.0.0.1.
const (
	hostPort    = "8080"
	hostAddress = "192.0.2.1"
)

// host is the machine of a caller.
type host struct {
	run     Run
	caller  caller
	machine *machine.Machine

	network string
}

// play has the caller make each of its networks and use it.
func (h *host) play(ctx context.Context) error {
	if err := h.setUp(ctx); err != nil {
		return err
	}

	version, err := h.version(ctx)
	if err != nil {
		return err
	}

	networks, err := h.call(ctx, "networks")
	if err != nil {
		return err
	}

	for network := range strings.FieldsSeq(networks) {
		began := time.Now()
		h.network = network
		if err := h.use(ctx); err != nil {
			return fmt.Errorf("%s, network %s: %w", version, network, err)
		}

		const format = "%-12s %s, network %s: %.1f s\n"
		fmt.Fprintf(h.run.Out, format, h.caller.name, version, network, time.Since(began).Seconds())
	}

	return nil
}

// version is what the caller says of itself, else what its program was built of.
func (h *host) version(ctx context.Context) (string, error) {
	if h.caller.module == "" {
		return h.call(ctx, "version")
	}

	program := h.run.find(h.caller.needs[0])
	info, err := buildinfo.ReadFile(program)
	if err != nil {
		return "", err
	}
	for _, d := range append(info.Deps, &info.Main) {
		if d.Path == h.caller.module {
			return h.caller.name + " " + d.Version, nil
		}
	}
	return "", fmt.Errorf("%s is not of module %s", program, h.caller.module)
}

// setUp puts the plugins and what the caller needs on the machine, and starts its daemon.
func (h *host) setUp(ctx context.Context) error {
	// The machine has a copy of /etc and /opt, in which there may be networks and plugins.
	const script = `rm -rf /etc/cni /etc/containers /opt/cni
		ip link set lo up
		ip address add ` + hostAddress + `/32 dev lo
		sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1`
	if _, err := h.output(ctx, "sh", "-ec", script); err != nil {
		return err
	}
	if _, err := h.output(ctx, h.run.Plugin, "install", "--dir", plugins); err != nil {
		return err
	}
	if _, err := h.call(ctx, "prepare"); err != nil {
		return err
	}

	if len(h.caller.daemon) > 0 {
		if err := h.startDaemon(ctx); err != nil {
			return err
		}
	}

	_, err := h.call(ctx, "load")
	return err
}

// startDaemon starts the caller's daemon and waits until it answers.
func (h *host) startDaemon(ctx context.Context) error {
	argv := append([]string{h.run.find(h.caller.daemon[0])}, h.caller.daemon[1:]...)
	d := machine.Daemon{
		Name: filepath.Base(argv[0]),
		Argv: argv,
		Env: []string{
			"PATH=" + h.run.Programs + ":" + h.run.podman() + "/bin:" + os.Getenv("PATH"),
			"LD_LIBRARY_PATH=" + h.run.podman() + "/lib",
		},
	}
	if err := h.machine.Start(d); err != nil {
		return err
	}

	return h.eventually(ctx, func(ctx context.Context) error {
		_, err := h.call(ctx, "ready")
		return err
	})
}

// patience bounds what does not happen at once.
const patience = 20 * time.Second

// eventually calls f until it returns nil.
func (h *host) eventually(ctx context.Context, f func(ctx context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()

	return retry.Until(ctx, retry.Backoff{First: 50 * time.Millisecond, Max: time.Second}, f)
}

// call calls a function of the caller's script and returns what it prints, without what it says beside.
func (h *host) call(ctx context.Context, function string, arguments ...string) (string, error) {
	script := filepath.Join(h.run.scripts(), h.caller.name+".sh")
	words := append([]string{"-euc", `. "$0"; "$@"`, script, function}, arguments...)
	return h.output(ctx, "sh", words...)
}

// output runs a program on the machine, with the variables of the scripts.
func (h *host) output(ctx context.Context, program string, arguments ...string) (string, error) {
	command, err := h.machine.Command(ctx, program, arguments...)
	if err != nil {
		return "", err
	}

	command.Env = append(os.Environ(),
		"PLUGINS="+plugins,
		"PROGRAMS="+h.run.Programs,
		"PODMAN="+h.run.podman(),
		"IMAGES="+h.run.Work,
		"SCRIPTS="+h.run.scripts(),
		"IMAGE="+image,
		"PAUSE="+pause,
		"NETWORK="+h.network,
	)

	// What is left behind by the program may keep the pipe open.
	command.WaitDelay = time.Second
	var stdout, stderr bytes.Buffer
	command.Stdout, command.Stderr = &stdout, &stderr
	err = command.Run()
	if err != nil && !errors.Is(err, exec.ErrWaitDelay) {
		err = fmt.Errorf("%s: %w: %s%s", strings.Join(arguments, " "), err, &stdout, &stderr)
		return "", err
	}

	return strings.TrimSpace(stdout.String()), nil
}

// address is the IPv4 address of a container.
func (h *host) address(ctx context.Context, name string) (string, error) {
	out, err := h.call(ctx, "inside", name, "ip", "-4", "-o", "address", "show", "dev", "eth0")
	if err != nil {
		return "", err
	}

	found := inet.FindStringSubmatch(out)
	if found == nil {
		return "", fmt.Errorf("container %s has no address: %s", name, out)
	}
	return found[1], nil
}

var inet = regexp.MustCompile(`inet ([0-9.]+)/`)
