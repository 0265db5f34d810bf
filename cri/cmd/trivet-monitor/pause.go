package main

import (
	"os"
	"os/signal"
	"syscall"
)

// pause is the init of a pod whose containers share one PID namespace: it reaps what they leave behind and
// ends when asked to. It is this binary, so that no image has to be pulled for it.
func pause() {
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, syscall.SIGCHLD, syscall.SIGTERM, syscall.SIGINT)
	for s := range signals {
		if s != syscall.SIGCHLD {
			return
		}

		for {
			pid, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil)
			if pid <= 0 && err != syscall.EINTR {
				break
			}
		}
	}
}
