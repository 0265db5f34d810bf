package main

import "os/exec"

// defaultRuntime is the OCI runtime where none was chosen: crun, which is the faster one, or runc where only
// that is there.
func defaultRuntime() string {
	if _, err := exec.LookPath("crun"); err == nil {
		return "crun"
	}
	if _, err := exec.LookPath("runc"); err == nil {
		return "runc"
	}
	return "crun"
}
