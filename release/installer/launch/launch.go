// Package launch brings what an image of the installer has to the machine that its pod runs on, and starts
// the exchange there: as a service of the machine's systemd, because the exchange ends the pod, and has to go
// on after a reboot.
package launch

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/trivet-node/trivet/internal/durable"

	"github.com/trivet-node/trivet/release/installer/swap"
)

// File is one that the image has and the exchange needs.
type File struct {
	// Path is in the image. The name without directories is that in the set.
	Path string
	Mode fs.FileMode
}

// Units is the machine's systemd.
type Units interface {
	StartSoon(ctx context.Context, unit string) error
	Stop(ctx context.Context, unit string) error
	Enable(ctx context.Context, unit string) error
	Disable(ctx context.Context, unit string) error
	Reload(ctx context.Context) error
	Active(ctx context.Context, unit string) (bool, error)
}

// Machine is the one that the pod runs on.
type Machine struct {
	Part  string
	Units Units

	// Root is where its file system is, seen from here, and Folder the installer's, seen from the machine.
	Root   string
	Folder swap.Folder

	// Files are those of the part. Program is this program, which is not of the part.
	Files   []File
	Program string

	Version string
}

// service carries out orders.
func (m Machine) service() string { return "trivet-installer-" + m.Part + ".service" }

func (m Machine) servicePath() string {
	return filepath.Join(m.Root, "/etc/systemd/system", m.service())
}

// State is the name of the files: the version, and what they are.
func (m Machine) State() (swap.State, error) {
	sum := sha256.New()
	for _, f := range m.Files {
		data, err := os.ReadFile(f.Path)
		if err != nil {
			return "", err
		}
		content := sha256.Sum256(data)
		fmt.Fprintf(sum, "%s %x\n", filepath.Base(f.Path), content)
	}
	return swap.State(m.Version + "-" + hex.EncodeToString(sum.Sum(nil))[:12]), nil
}

// Stage writes the files to the machine.
func (m Machine) Stage() (swap.State, error) {
	state, err := m.State()
	if err != nil {
		return "", err
	}

	dir := filepath.Join(m.Root, m.Folder.Path("payload", string(state)))
	if err := errors.Join(os.MkdirAll(dir, 0o700), durable.SweepDir(dir)); err != nil {
		return "", err
	}
	for _, f := range append(slices.Clone(m.Files), File{Path: m.Program, Mode: 0o755}) {
		data, err := os.ReadFile(f.Path)
		if err != nil {
			return "", err
		}

		path := filepath.Join(dir, filepath.Base(f.Path))
		if there, err := os.ReadFile(path); err == nil && bytes.Equal(there, data) {
			continue
		}
		if err := durable.WriteFile(path, data, f.Mode); err != nil {
			return "", err
		}
	}
	return state, nil
}

// Sweep removes the files of states that are not named; without any, all that the installer keeps.
func (m Machine) Sweep(keep ...swap.State) error {
	folder := swap.Folder(filepath.Join(m.Root, string(m.Folder)))
	if len(keep) == 0 {
		if err := errors.Join(folder.Forget(), os.RemoveAll(string(folder))); err != nil {
			return err
		}

		// Others may have something there.
		above := filepath.Join(m.Root, filepath.Dir(string(m.Folder)))
		os.Remove(above)
		os.Remove(filepath.Dir(above))
		return nil
	}

	entries, err := os.ReadDir(folder.Path("payload"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}

	for _, entry := range entries {
		if !slices.Contains(keep, swap.State(entry.Name())) {
			if err := os.RemoveAll(folder.Path("payload", entry.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

// text is the service's unit. What it starts is an exchange's own, so it may be killed with it.
func (m Machine) text(state swap.State) string {
	program := m.Folder.Path("payload", string(state), filepath.Base(m.Program))
	return fmt.Sprintf(`# Written by the installer of trivet, and removed when the exchange is done.
[Unit]
Description=exchange of the seat of %[1]s by the installer of trivet
Wants=network-online.target
After=network-online.target local-fs.target
StartLimitIntervalSec=0

[Service]
ExecStart=%[2]s exchange --part=%[1]s --folder=%[3]s
Restart=on-failure
RestartSec=1
OOMScoreAdjust=-999

[Install]
WantedBy=multi-user.target
`, m.Part, program, m.Folder)
}

// Launch starts the service.
func (m Machine) Launch(ctx context.Context, state swap.State) error {
	if err := durable.WriteFile(m.servicePath(), []byte(m.text(state)), 0o644); err != nil {
		return err
	}
	if err := m.Units.Enable(ctx, m.service()); err != nil {
		return err
	}
	return m.Units.StartSoon(ctx, m.service())
}

// Idle reports whether the service does not run.
func (m Machine) Idle(ctx context.Context) (bool, error) {
	active, err := m.Units.Active(ctx, m.service())
	return !active, err
}

// Cancel ends the service, whatever it is at, and removes it.
func (m Machine) Cancel(ctx context.Context) error {
	if err := m.Units.Stop(ctx, m.service()); err != nil {
		return err
	}
	return m.Retire(ctx)
}

// Retire removes the service, whose process calls it at its end.
func (m Machine) Retire(ctx context.Context) error {
	if err := durable.Sweep(m.servicePath()); err != nil {
		return err
	}
	if _, err := os.Lstat(m.servicePath()); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err := m.Units.Disable(ctx, m.service()); err != nil {
		return err
	}
	if err := os.Remove(m.servicePath()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return m.Units.Reload(ctx)
}
