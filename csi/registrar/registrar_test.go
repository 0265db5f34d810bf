package registrar_test

import (
	"log/slog"
	"path/filepath"
	"testing"

	registerapi "k8s.io/kubelet/pkg/apis/pluginregistration/v1"

	"github.com/trivet-node/trivet/csi/registrar"
	"github.com/trivet-node/trivet/internal/socket"
	"github.com/trivet-node/trivet/internal/testenv"
)

func TestKubeletLearnsOfTheDriver(t *testing.T) {
	path := filepath.Join(testenv.ShortDir(t), "reg.sock")
	l, err := socket.Listen(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}

	server := registrar.New(registrar.Config{
		Driver:   "csi.trivet.dev",
		Endpoint: "/plugins/csi.sock",
		Log:      slog.New(slog.DiscardHandler),
	}).Server()

	done := make(chan error, 1)
	go func() { done <- server.Serve(l) }()
	defer func() { server.Stop(); <-done }()

	conn, err := socket.Dial(path)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()

	kubelet := registerapi.NewRegistrationClient(conn)
	info, err := kubelet.GetInfo(t.Context(), &registerapi.InfoRequest{})
	if err != nil || info.GetType() != registerapi.CSIPlugin || info.GetName() != "csi.trivet.dev" ||
		info.GetEndpoint() != "/plugins/csi.sock" ||
		len(info.GetSupportedVersions()) != 1 {
		t.Errorf("info %v, %v", info, err)
	}

	for _, registered := range []bool{true, false} {
		if _, err := kubelet.NotifyRegistrationStatus(t.Context(), &registerapi.RegistrationStatus{
			PluginRegistered: registered,
			Error:            "no",
		}); err != nil {
			t.Error(err)
		}
	}
}
