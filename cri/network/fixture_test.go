package network

import (
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// plugin is a CNI plugin that keeps one file per pod that it joined, and a copy of what it was asked to
// collect. The files fail-ADD, fail-DEL and fail-STATUS make the call fail.
const plugin = `#!/bin/sh
input=$(cat)
if [ -e DIR/fail-$CNI_COMMAND ]; then
	[ $CNI_COMMAND = ADD ] && : >DIR/joined/$CNI_CONTAINERID
	echo '{"cniVersion":"1.1.0","code":11,"msg":"made to fail"}'
	exit 1
fi
case $CNI_COMMAND in
VERSION) echo '{"cniVersion":"1.1.0","supportedVersions":["1.1.0"]}' ;;
ADD) echo "$CNI_ARGS $input" >DIR/joined/$CNI_CONTAINERID
	echo '{"cniVersion":"1.1.0","ips":[{"address":"10.1.2.3/24"}]}' ;;
DEL) rm -f DIR/joined/$CNI_CONTAINERID ;;
GC) echo "$input" >DIR/collected ;;
esac
`

const conflist = `{"cniVersion":"1.1.0","name":"test","plugins":[
	{"type":"test","capabilities":{"portMappings":true,"dns":true}}]}`

// fixture is a Network whose only plugin is the one above.
type fixture struct {
	*Network
	tb  testing.TB
	dir string
}

func open(t *testing.T) *fixture {
	t.Helper()
	dir := t.TempDir()
	for _, d := range []string{"joined", "bin", "net.d"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}

	f := &fixture{tb: t, dir: dir}
	f.write("bin/test", strings.ReplaceAll(plugin, "DIR", dir), 0o755)
	f.Network = New(Config{
		ConfDir:  filepath.Join(dir, "net.d"),
		BinDirs:  []string{filepath.Join(dir, "bin")},
		CacheDir: filepath.Join(dir, "cache"),
		Log:      slog.New(slog.DiscardHandler),
	})

	return f
}

// ready gives the network its configuration.
func (f *fixture) ready() {
	f.tb.Helper()
	f.write("net.d/10.conflist", conflist, 0o644)
	f.Reload(f.tb.Context())
	if err := f.Ready(f.tb.Context()); err != nil {
		f.tb.Fatal(err)
	}
}

func (f *fixture) path(name string) string { return filepath.Join(f.dir, name) }

// has reports whether there is a file.
func (f *fixture) has(name string) bool {
	_, err := os.Stat(f.path(name))
	return err == nil
}

func (f *fixture) write(name, text string, mode os.FileMode) string {
	f.tb.Helper()
	if err := os.WriteFile(f.path(name), []byte(text), mode); err != nil {
		f.tb.Fatal(err)
	}
	return f.path(name)
}

func (f *fixture) remove(name string) {
	f.tb.Helper()
	if err := os.Remove(f.path(name)); err != nil {
		f.tb.Fatal(err)
	}
}

// checkJoined compares the pods that are joined.
func (f *fixture) checkJoined(want ...string) {
	f.tb.Helper()
	entries, err := os.ReadDir(f.path("joined"))
	if err != nil {
		f.tb.Fatal(err)
	}

	var joined []string
	for _, e := range entries {
		joined = append(joined, e.Name())
	}

	if !slices.Equal(joined, want) {
		f.tb.Errorf("joined are %v, want %v", joined, want)
	}
}
