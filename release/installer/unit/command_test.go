package unit

import (
	"strings"
	"testing"
)

// kubeadm is what systemctl cat prints of a node that kubeadm has set up, with settings of kind.
const kubeadm = `# /etc/systemd/system/kubelet.service
[Unit]
Description=kubelet: The Kubernetes Node Agent

[Service]
ExecStart=/usr/bin/kubelet
Restart=always

# /etc/systemd/system/kubelet.service.d/10-kubeadm.conf
# Note: This dropin only works with kubeadm and kubelet v1.11+
[Service]
Environment="KUBELET_KUBECONFIG_ARGS=--kubeconfig=/etc/kubernetes/kubelet.conf"
EnvironmentFile=-/etc/default/kubelet
ExecStart=
ExecStart=/usr/bin/kubelet $KUBELET_KUBECONFIG_ARGS \
    $KUBELET_EXTRA_ARGS "--node-labels=a b"

# /etc/systemd/system/kubelet.service.d/11-kind.conf
[Service]
ExecStartPre=/bin/sh -euc "true"
`

const ours = `
# /etc/systemd/system/kubelet.service.d/90-trivet-node.conf
[Service]
ExecStart=
ExecStart=/usr/local/bin/trivet-node --old
`

func TestCommandIsTheLastOneAsItIsWritten(t *testing.T) {
	const skip = "/etc/systemd/system/kubelet.service.d/90-trivet-node.conf"
	for _, text := range []string{kubeadm, kubeadm + ours} {
		got, err := Command(text, skip)
		got = strings.Join(strings.Fields(got), " ")
		want := `$KUBELET_KUBECONFIG_ARGS $KUBELET_EXTRA_ARGS "--node-labels=a b"`
		if err != nil || got != want {
			t.Errorf("arguments %q, %v", got, err)
		}
	}
}

func TestSpacesAroundTheSignOfASettingAreNone(t *testing.T) {
	const text = "[Service]\nExecStart=/usr/bin/kubelet\n# /etc/x.conf\n[Service]\nExecStart =\n" +
		"ExecStart = /usr/bin/kubelet --v=2\n"
	if got, err := Command(text, ""); err != nil || got != "--v=2" {
		t.Errorf("arguments %q, %v", got, err)
	}
}

func TestCommandsThatCannotBeReplacedAreRefused(t *testing.T) {
	for _, text := range []string{
		"",
		"[Service]\nExecStart=/a\nExecStart=/b\n",
		"[Service]\nExecStart=-/usr/bin/kubelet\n",
		"[Service]\nExecStart=kubelet\n",
	} {
		if got, err := Command(text, ""); err == nil {
			t.Errorf("%q: arguments %q", text, got)
		}
	}
}

func TestSettingsAreThoseOfTheService(t *testing.T) {
	const text = "[Unit]\nAfter=x\n[Service]\n# why\nType=notify\nExecStart=a \\\n    b\n" +
		"KillMode=process\n[Install]\nWantedBy=y\n"
	got, err := Settings(text, "ExecStart")
	if err != nil || strings.Join(got, " ") != "Type=notify KillMode=process" {
		t.Errorf("settings %q, %v", got, err)
	}
}

func FuzzCommand(f *testing.F) {
	f.Add(kubeadm)
	f.Fuzz(func(t *testing.T, text string) {
		if got, err := Command(text, ""); err == nil && strings.Contains(got, "\n") {
			t.Errorf("arguments %q", got)
		}
	})
}

func TestProgramThatAServiceStarts(t *testing.T) {
	const one = "{ path=/usr/local/bin/trivet-node ; argv[]=/usr/local/bin/trivet-node $A ; " +
		"ignore_errors=no ; pid=0 ; status=0/0 }"
	if got, err := startedBy(one); err != nil || got != "/usr/local/bin/trivet-node" {
		t.Errorf("program %q, %v", got, err)
	}
	for _, text := range []string{"", one + " " + one, "{ path=/a"} {
		if got, err := startedBy(text); err == nil {
			t.Errorf("%q: program %q", text, got)
		}
	}
}
