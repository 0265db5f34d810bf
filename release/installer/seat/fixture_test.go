package seat

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/trivet-node/trivet/internal/testenv"
	"github.com/trivet-node/trivet/release/installer/swap"
)

// service is one of the machine's.
type service struct {
	enabled, active bool
	program         string
	process         int

	// starts finds the program that a start executes; nil: always the same.
	starts func() string
}

// machine is a systemd in memory, whose units have effects on runtimes. It ends its caller at a call if it is
// told to.
type machine struct {
	t        *testing.T
	root     string
	services map[string]*service
	runtimes map[string]*server
	served   map[string]*grpc.Server
	text     string

	calls  []string
	killAt int
	kill   context.CancelFunc

	// processes counts those that were started, and killed is how often all of pods were.
	processes, killed int

	// late is how often the old process is seen after a restart, which is done then.
	late int
	soon func()

	// using are the processes in containers of trivet-cri.
	using []int

	// arguments are those of the agent beside its program.
	arguments []string

	// starts is what systemd says that the agent's service starts; empty: what its files say.
	starts string
}

// Kill of processes of pods: no runtime has them any more.
type processes struct{ *machine }

func (p processes) Kill(context.Context) error {
	p.killed++
	for _, s := range p.runtimes {
		s.mu.Lock()
		s.immortal = false
		clear(s.pods)
		s.mu.Unlock()
	}
	return nil
}

func (p processes) Using(string) ([]int, error) { return p.using, nil }

func (m *machine) call(ctx context.Context, format string, args ...any) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	m.calls = append(m.calls, fmt.Sprintf(format, args...))
	if len(m.calls) == m.killAt {
		m.kill()
		return context.Canceled
	}
	return nil
}

func (m *machine) unit(name string) *service {
	if m.services[name] == nil {
		m.services[name] = &service{}
	}
	return m.services[name]
}

func (m *machine) Start(ctx context.Context, unit string) error {
	if err := m.call(ctx, "start %s", unit); err != nil {
		return err
	}
	m.start(unit)
	return nil
}

func (m *machine) start(unit string) {
	s := m.unit(unit)
	if s.active {
		return
	}

	s.active = true
	m.processes++
	s.process = m.processes
	if s.starts != nil {
		s.program = s.starts()
	}
	if m.runtimes[unit] != nil {
		m.serve(unit)
	}
}

func (m *machine) StartSoon(ctx context.Context, unit string) error { return m.Start(ctx, unit) }

func (m *machine) Stop(ctx context.Context, unit string) error {
	if err := m.call(ctx, "stop %s", unit); err != nil {
		return err
	}
	m.stop(unit)
	return nil
}

func (m *machine) stop(unit string) {
	m.unit(unit).active = false
	m.unit(unit).program = ""
	m.unit(unit).process = 0
	if s := m.served[unit]; s != nil {
		s.Stop()
		delete(m.served, unit)

		// Its own goroutine may not have come to serve, and so to close it.
		os.Remove(m.root + sockets[unit])
	}
}

func (m *machine) RestartSoon(ctx context.Context, unit string) error {
	if err := m.call(ctx, "restart %s", unit); err != nil {
		return err
	}
	m.soon = func() {
		m.soon = nil
		m.stop(unit)
		m.start(unit)
	}
	if m.late == 0 {
		m.soon()
	}
	return nil
}

func (m *machine) Kill(ctx context.Context, unit string) error { return m.call(ctx, "kill %s", unit) }

func (m *machine) Enable(ctx context.Context, unit string) error {
	m.unit(unit).enabled = true
	return m.call(ctx, "enable %s", unit)
}

func (m *machine) Disable(ctx context.Context, unit string) error {
	m.unit(unit).enabled = false
	return m.call(ctx, "disable %s", unit)
}

func (m *machine) Reload(ctx context.Context) error { return m.call(ctx, "reload") }

func (m *machine) Exists(_ context.Context, unit string) (bool, error) {
	if unit == criUnit {
		_, err := os.Stat(m.root + criUnitPath)
		return err == nil, nil
	}
	return m.services[unit] != nil, nil
}

func (m *machine) Active(_ context.Context, unit string) (bool, error) {
	return m.unit(unit).active, nil
}

func (m *machine) Enabled(_ context.Context, unit string) (bool, error) {
	return m.unit(unit).enabled, nil
}

func (m *machine) Users(_ context.Context, unit string) (users []string, err error) {
	if unit == "containerd.service" && m.unit("docker.service").active {
		users = []string{"docker.service"}
	}
	return users, nil
}

func (m *machine) Process(_ context.Context, unit string) (int, error) {
	if m.soon != nil {
		if m.late--; m.late == 0 {
			m.soon()
		}
	}
	return m.unit(unit).process, nil
}

func (m *machine) Starts(context.Context, string) (string, error) {
	if m.starts != "" {
		return m.starts, nil
	}
	return m.agentProgram(), nil
}

func (m *machine) Program(_ context.Context, unit string) (string, error) {
	return m.unit(unit).program, nil
}

func (m *machine) Arguments(context.Context, string) ([]string, error) {
	return append([]string{"/usr/bin/kubelet"}, m.arguments...), nil
}

func (m *machine) Text(context.Context, string) (string, error) { return m.text, nil }

func (m *machine) Of(int) (string, error) { return "containerd.service", nil }

// sockets are those of the runtimes.
var sockets = map[string]string{
	"containerd.service": "/run/containerd/containerd.sock",
	criUnit:              "/run/trivet/cri.sock",
}

// serve serves a runtime at its socket.
func (m *machine) serve(unit string) {
	path := m.root + sockets[unit]
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		m.t.Error(err)
	}
	os.Remove(path)
	listener, err := net.Listen("unix", path)
	if err != nil {
		m.t.Error(err)
		return
	}

	s := grpc.NewServer()
	cri.RegisterRuntimeServiceServer(s, m.runtimes[unit])
	cri.RegisterImageServiceServer(s, m.runtimes[unit])
	go s.Serve(listener)
	m.served[unit] = s
	m.t.Cleanup(s.Stop)
}

const kubeletConfig = "apiVersion: kubelet.config.k8s.io/v1beta1\ncgroupDriver: systemd\n" +
	"containerRuntimeEndpoint: \"unix:///run/containerd/containerd.sock\"\nkind: KubeletConfiguration\n"

const kubeletText = "# /lib/systemd/system/kubelet.service\n[Service]\n" +
	"ExecStart=/usr/bin/kubelet $KUBELET_CONFIG_ARGS\n"

// newMachine is a node with kubelet, containerd and a pod, and the files of two versions of trivet.
func newMachine(t *testing.T) (*machine, Host) {
	t.Helper()
	m := &machine{
		t:        t,
		root:     testenv.ShortDir(t),
		services: map[string]*service{},
		runtimes: map[string]*server{
			"containerd.service": {pods: map[string]bool{"web": true}, ended: map[string]bool{}},
			criUnit:              {pods: map[string]bool{}, ended: map[string]bool{}},
		},
		served: map[string]*grpc.Server{},
		text:   kubeletText,

		arguments: []string{"--config=" + agentConfig},
	}

	m.put(agentConfig, kubeletConfig)
	m.put(instanceConfig, "containerRuntimeEndpoint: unix:///run/containerd/containerd.sock\n")
	m.put(kubeadmFlags, "KUBELET_KUBEADM_ARGS=\"--node-ip=10.0.0.1\"\n")
	m.put(crictlConfig, "runtime-endpoint: unix:///run/containerd/containerd.sock\n")
	m.unit("containerd.service").enabled = true
	m.start("containerd.service")
	m.unit(kubeletUnit).enabled = true
	m.unit(kubeletUnit).starts = m.agentProgram
	m.start(kubeletUnit)
	m.unit(criUnit).starts = func() string { return criProgram }

	host := Host{
		Units:  m,
		Pods:   processes{m},
		Folder: swap.Folder(filepath.Join(m.root, "installer")),
		Root:   m.root,
		Log:    slog.New(slog.NewTextHandler(t.Output(), nil)),

		patience: 500 * time.Millisecond,
		second:   time.Millisecond,
	}
	for _, state := range []swap.State{"v1", "v2"} {
		m.putPayload(host, state, "trivet-monitor", "#!/bin/sh\n")
		m.putPayload(host, state, "trivet-cri", "#!/bin/sh\n# "+string(state)+"\n")
		m.putPayload(host, state, "trivet-cri.service", "[Service]\nExecStart=trivet-cri\n")
		m.putPayload(host, state, "cri.toml", "# defaults\n")
		m.putPayload(host, state, "trivet-node", "node "+string(state))
		m.putPayload(host, state, "trivet-node.service",
			"[Service]\nType=notify\nExecStart=trivet-node\nKillMode=process\n")
	}
	return m, host
}

func (m *machine) putPayload(h Host, state swap.State, name, text string) {
	path := h.payload(state, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		m.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
		m.t.Fatal(err)
	}
}

// agentProgram is what kubelet.service executes.
func (m *machine) agentProgram() string {
	if strings.Contains(m.read(nodeDropIn), "ExecStart="+nodeProgram) {
		return nodeProgram
	}
	return "/usr/bin/kubelet"
}

func (m *machine) put(path, text string) {
	m.t.Helper()
	if err := os.MkdirAll(filepath.Dir(m.root+path), 0o755); err != nil {
		m.t.Fatal(err)
	}
	if err := os.WriteFile(m.root+path, []byte(text), 0o644); err != nil {
		m.t.Fatal(err)
	}
}

func (m *machine) read(path string) string {
	text, err := readFile(m.root + path)
	if err != nil {
		m.t.Error(err)
	}
	return text
}

// files are those of the machine, without sockets, the installer's folder and the directories that it shares.
func (m *machine) files() map[string]string {
	all := map[string]string{}
	err := filepath.WalkDir(m.root, func(path string, d os.DirEntry, err error) error {
		name := strings.TrimPrefix(path, m.root)
		own := strings.HasPrefix(name, "/installer") || strings.HasPrefix(name, "/run")
		if err != nil || own || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		all[name] = string(data)
		return err
	})
	if err != nil {
		m.t.Fatal(err)
	}
	return all
}

// alive are the services that run or start with the machine.
func (m *machine) alive() []string {
	var all []string
	for name, s := range m.services {
		if s.active || s.enabled {
			all = append(all, fmt.Sprintf("%s active=%t enabled=%t", name, s.active, s.enabled))
		}
	}
	slices.Sort(all)
	return all
}
