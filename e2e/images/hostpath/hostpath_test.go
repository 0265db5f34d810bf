package main

import (
	"errors"
	"io"
	"net"
	"path/filepath"
	"testing"
	"time"
)

func TestConnectionToTheSocketIsJoinedWithOneThatWaitsAtTheOtherAddress(t *testing.T) {
	dir := t.TempDir()
	socket, address := filepath.Join(dir, "csi.sock"), filepath.Join(dir, "far.sock")
	done := make(chan error, 1)
	go func() { done <- join(t.Context(), socket, address) }()

	far, near := dial(t, address), dial(t, socket)
	if _, err := near.Write([]byte("question")); err != nil {
		t.Fatal(err)
	}

	heard := make([]byte, len("question"))
	if _, err := io.ReadFull(far, heard); err != nil || string(heard) != "question" {
		t.Errorf("heard %q, %v", heard, err)
	}

	// What one end closes is closed at the other.
	far.Close()
	if n, err := near.Read(heard); !errors.Is(err, io.EOF) {
		t.Errorf("read %d bytes, %v", n, err)
	}
}

func dial(t *testing.T, path string) net.Conn {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; {
		conn, err := net.Dial("unix", path)
		if err == nil {
			t.Cleanup(func() { conn.Close() })
			return conn
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

func TestIDThatLeadsOutOfTheDirectoryIsRefused(t *testing.T) {
	for id, valid := range map[string]bool{
		"csi-0123":   true,
		"":           false,
		"..":         false,
		".":          false,
		"a/b":        false,
		"/etc":       false,
		"state.json": false,
	} {
		if validID(id) != valid {
			t.Errorf("%q is valid: %v", id, !valid)
		}
	}
}

func TestStoreIsFoundAgain(t *testing.T) {
	dir := t.TempDir()
	s, err := openStore(dir)
	if err != nil {
		t.Fatal(err)
	}

	if err := s.create(&volume{
		ID:    "a",
		Name:  "first",
		Size:  1 << 20,
		Block: true,
	}, ""); err != nil {
		t.Fatal(err)
	}

	if err := s.create(&volume{
		ID:    "b",
		Name:  "second",
		Size:  2 << 20,
		Block: true,
	}, "a"); err != nil {
		t.Fatal(err)
	}

	if err := s.remove("a"); err != nil {
		t.Fatal(err)
	}

	again, err := openStore(dir)
	if err != nil {
		t.Fatal(err)
	}
	if v := again.volumeNamed("second"); v == nil || v.Size != 2<<20 || len(again.Volumes) != 1 {
		t.Errorf("volumes %v", again.Volumes)
	}
}
