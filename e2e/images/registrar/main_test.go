package main

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	registration "k8s.io/kubelet/pkg/apis/pluginregistration/v1"
)

type fakeDriver struct {
	csi.UnimplementedIdentityServer
}

func (fakeDriver) GetPluginInfo(
	context.Context,
	*csi.GetPluginInfoRequest,
) (*csi.GetPluginInfoResponse, error) {
	return &csi.GetPluginInfoResponse{Name: "driver.example.com"}, nil
}

// start runs a registrar beside a driver and returns a client of its socket, and what run returns.
func start(t *testing.T) (registration.RegistrationClient, string, chan error) {
	t.Helper()
	dir := t.TempDir()
	l, err := net.Listen("unix", filepath.Join(dir, "csi.sock"))
	if err != nil {
		t.Fatal(err)
	}

	driver := grpc.NewServer()
	csi.RegisterIdentityServer(driver, fakeDriver{})
	go func() { _ = driver.Serve(l) }()
	t.Cleanup(driver.Stop)

	o := options{
		driver:     filepath.Join(dir, "csi.sock"),
		endpoint:   "/plugins/driver/csi.sock",
		directory:  dir,
		perRequest: 30 * time.Second,
	}

	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	done := make(chan error, 1)
	go func() { done <- o.run(ctx) }()

	path := filepath.Join(dir, "driver.example.com-reg.sock")
	conn, err := grpc.NewClient("unix://"+path, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}

	t.Cleanup(func() { conn.Close() })
	return registration.NewRegistrationClient(conn), path, done
}

func TestDriverIsRegisteredByItsNameAndTheSocketThatTheAgentSees(t *testing.T) {
	client, _, _ := start(t)
	info, err := client.GetInfo(t.Context(), &registration.InfoRequest{}, grpc.WaitForReady(true))
	if err != nil {
		t.Fatal(err)
	}
	if info.GetName() != "driver.example.com" || info.GetEndpoint() != "/plugins/driver/csi.sock" {
		t.Errorf("registered %v", info)
	}
}

func TestRefusedRegistrationEndsTheProgramAndItsSocket(t *testing.T) {
	client, path, done := start(t)
	refusal := &registration.RegistrationStatus{Error: "no"}
	if _, err := client.NotifyRegistrationStatus(t.Context(), refusal, grpc.WaitForReady(true)); err != nil {
		t.Logf("the server has ended before its answer: %v", err)
	}
	if err := <-done; err == nil {
		t.Error("it ended without an error")
	}
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is left: %v", err)
	}
}

func TestHealthIsThatOfTheSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "socket")
	for _, want := range []int{http.StatusInternalServerError, http.StatusOK} {
		answer := httptest.NewRecorder()
		healthz(path).ServeHTTP(answer, httptest.NewRequest(http.MethodGet, "/healthz", nil))
		if answer.Code != want {
			t.Errorf("code %d, want %d", answer.Code, want)
		}
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}
