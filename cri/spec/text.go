package spec

import (
	"fmt"
	"strings"
)

// checkText returns an error for an argument, a variable or a directory with a NUL byte: execve(2) ends texts
// there, so the process would get another value than the pod has.
func checkText(args, env []string, cwd string) error {
	for i, arg := range args {
		if strings.ContainsRune(arg, 0) {
			return fmt.Errorf("argument %d of the command has a NUL byte", i)
		}
	}

	for _, pair := range env {
		if name, _, _ := strings.Cut(pair, "="); strings.ContainsRune(pair, 0) {
			return fmt.Errorf("environment variable %q has a NUL byte", name)
		}
	}

	if strings.ContainsRune(cwd, 0) {
		return fmt.Errorf("working directory %q has a NUL byte", cwd)
	}

	return nil
}
