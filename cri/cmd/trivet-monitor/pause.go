package main

import (
	"os"
	"os/signal"
	"syscall"
)

// pause is the first process of a pod whose containers share one PID namespace: it reaps what they leave
// behind and ends when it is asked to. It is part of this program, so that no image has to be pulled for it.
func pause() {
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, syscall.SIGCHLD, syscall.SIGTERM, syscall.SIGINT)

	for {
		// The first time, for children that ended before the signal was asked for.
		reapEnded()
		if s := <-signals; s != syscall.SIGCHLD {
			return
		}
	}
}

// reapEnded reaps all children that have ended.
func reapEnded() {
	for {
		pid, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil)
		if pid <= 0 && err != syscall.EINTR {
			return
		}
	}
}
