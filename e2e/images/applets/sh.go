package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
)

// plain is a script of one command without any syntax of the shell.
var plain = regexp.MustCompile(`^[\w./-]+( [\w./=:-]+)*$`)

// shell executes a plain command by itself, and says with busybox' words why it cannot; bash does all else.
// It returns only an error.
func shell(argv []string) error {
	if len(argv) == 3 && argv[1] == "-c" && plain.MatchString(argv[2]) {
		words := strings.Fields(argv[2])
		if err := execute(words); errors.Is(err, fs.ErrPermission) {
			fmt.Fprintf(os.Stderr, "%s: %s: Permission denied\n", argv[0], words[0])
			os.Exit(126)
		}
	}
	return syscall.Exec("/bin/bash", append([]string{"sh"}, argv[1:]...), os.Environ())
}

// execute replaces this process by the first program of the PATH that can be executed.
func execute(words []string) error {
	result := fs.ErrNotExist
	for _, dir := range filepath.SplitList(os.Getenv("PATH")) {
		err := syscall.Exec(filepath.Join(dir, words[0]), words, os.Environ())
		if errors.Is(err, fs.ErrPermission) {
			result = fs.ErrPermission
		}
	}
	return result
}
