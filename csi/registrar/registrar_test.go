package registrar_test

import (
	"bytes"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	registerapi "k8s.io/kubelet/pkg/apis/pluginregistration/v1"

	"github.com/trivet-node/trivet/csi/registrar"
	"github.com/trivet-node/trivet/internal/socket"
	"github.com/trivet-node/trivet/internal/testenv"
)

// serve returns kubelet's view of a registrar, and what the registrar has logged when it is read.
func serve(t *testing.T) (registerapi.RegistrationClient, *bytes.Buffer) {
	t.Helper()
	path := filepath.Join(testenv.ShortDir(t), "reg.sock")
	l, err := socket.Listen(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}

	var log bytes.Buffer
	r := registrar.New(registrar.Config{
		Driver:   "csi.trivet.dev",
		Endpoint: "/plugins/csi.sock",
		Log:      slog.New(slog.NewTextHandler(&log, nil)),
	})

	server := r.Server()
	done := make(chan error, 1)
	go func() { done <- server.Serve(l) }()
	conn, err := socket.Dial(path)
	if err != nil {
		t.Fatal(err)
	}

	t.Cleanup(func() {
		conn.Close()
		server.Stop()
		<-done
	})

	return registerapi.NewRegistrationClient(conn), &log
}

func TestKubeletLearnsOfTheDriver(t *testing.T) {
	kubelet, _ := serve(t)
	info, err := kubelet.GetInfo(t.Context(), &registerapi.InfoRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if info.GetType() != registerapi.CSIPlugin || info.GetName() != "csi.trivet.dev" ||
		info.GetEndpoint() != "/plugins/csi.sock" ||
		!slices.Equal(info.GetSupportedVersions(), []string{"1.0.0"}) {
		t.Errorf("info %v", info)
	}
}

// kubelet tries again by itself, so that the log is the only place where somebody can see why a driver is not
// there.
func TestAnswerOfKubeletIsLoggedWithItsReason(t *testing.T) {
	for _, c := range []struct {
		status *registerapi.RegistrationStatus
		want   []string
	}{
		{&registerapi.RegistrationStatus{PluginRegistered: true}, []string{"level=INFO"}},
		{&registerapi.RegistrationStatus{Error: "wrong version"}, []string{"level=ERROR", "wrong version"}},
	} {
		kubelet, log := serve(t)
		if _, err := kubelet.NotifyRegistrationStatus(t.Context(), c.status); err != nil {
			t.Fatal(err)
		}

		for _, part := range c.want {
			if !strings.Contains(log.String(), part) {
				t.Errorf("log %q does not have %q", log, part)
			}
		}
	}
}
