package spec

import (
	"fmt"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// checkTexts refuses a NUL byte in what a pod or an image may say. To the kernel a text ends there, so that
// the runtime would fail without telling why, or, being written in C, take another text than the one that
// was checked.
func checkTexts(s *specs.Spec) error {
	if err := CheckArgs(s.Process.Args); err != nil {
		return err
	}
	for _, pair := range s.Process.Env {
		if name, value, _ := strings.Cut(pair, "="); strings.ContainsRune(name+value, 0) {
			return fmt.Errorf("environment variable %q has a NUL byte", name)
		}
	}
	if strings.ContainsRune(s.Process.Cwd, 0) {
		return fmt.Errorf("working directory %q has a NUL byte", s.Process.Cwd)
	}
	for _, m := range s.Mounts {
		if strings.ContainsRune(m.Source+m.Destination+strings.Join(m.Options, ""), 0) {
			return fmt.Errorf("mount %q has a NUL byte", m.Destination)
		}
	}
	for _, path := range append(slices.Clone(s.Linux.MaskedPaths), s.Linux.ReadonlyPaths...) {
		if strings.ContainsRune(path, 0) {
			return fmt.Errorf("masked or read-only path %q has a NUL byte", path)
		}
	}
	return nil
}

// CheckArgs refuses a command whose arguments the kernel would cut short.
func CheckArgs(args []string) error {
	for i, arg := range args {
		if strings.ContainsRune(arg, 0) {
			return fmt.Errorf("argument %d of the command has a NUL byte", i)
		}
	}
	return nil
}
