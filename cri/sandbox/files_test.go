package sandbox

import (
	"os"
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func TestResolvConfIsThePodsOrTheHosts(t *testing.T) {
	got, err := resolvConf(&runtimeapi.DNSConfig{
		Servers:  []string{"192.0.2.1", "192.0.2.2"},
		Searches: []string{"a.test", "b.test"},
		Options:  []string{"ndots:5"},
	})

	want := "search a.test b.test\nnameserver 192.0.2.1\nnameserver 192.0.2.2\noptions ndots:5\n"
	if err != nil || string(got) != want {
		t.Errorf("%q, %v; want %q", got, err, want)
	}

	ofHost, _ := os.ReadFile("/etc/resolv.conf")
	for _, none := range []*runtimeapi.DNSConfig{nil, {}} {
		got, err := resolvConf(none)
		if err != nil || string(got) != string(ofHost) {
			t.Errorf("without a DNS configuration: %q, %v", got, err)
		}
	}
}

func TestFilesOfThePodAreReadOnlyWithTheRoot(t *testing.T) {
	host := &runtimeapi.NamespaceOption{
		Network: runtimeapi.NamespaceMode_NODE,
		Ipc:     runtimeapi.NamespaceMode_NODE,
	}

	p := paths{state: "/run/s", disk: "/lib/s"}
	for _, c := range []struct {
		name     string
		options  *runtimeapi.NamespaceOption
		hostname string
		readOnly bool
		want     map[string]string
	}{
		{
			name:     "a pod with a host name",
			hostname: "web",
			want: map[string]string{
				"/dev/shm":         "/run/s/id/shm rw",
				"/etc/resolv.conf": "/lib/s/id/resolv.conf rw",
				"/etc/hostname":    "/lib/s/id/hostname rw",
			},
		},
		{
			name:     "a container with a read-only root",
			readOnly: true,
			want: map[string]string{
				"/dev/shm":         "/run/s/id/shm rw",
				"/etc/resolv.conf": "/lib/s/id/resolv.conf ro",
			},
		},
		{
			name:    "a pod in the host's namespaces",
			options: host,
			want: map[string]string{
				"/dev/shm":         "/dev/shm rw",
				"/etc/resolv.conf": "/lib/s/id/resolv.conf rw",
				"/etc/hostname":    "/lib/s/id/hostname rw",
			},
		},
	} {
		r := Record{ID: "id", config: &runtimeapi.PodSandboxConfig{
			Hostname: c.hostname,
			Linux: &runtimeapi.LinuxPodSandboxConfig{
				SecurityContext: &runtimeapi.LinuxSandboxSecurityContext{NamespaceOptions: c.options},
			},
		}}

		mounts := p.Mounts(r, c.readOnly)
		if len(mounts) != len(c.want) {
			t.Errorf("%s: %v", c.name, mounts)
		}

		for _, m := range mounts {
			if got := m.Source + " " + m.Options[len(m.Options)-1]; got != c.want[m.Destination] {
				t.Errorf("%s: %s is %s, want %s", c.name, m.Destination, got, c.want[m.Destination])
			}
		}
	}
}
