// Command pause is the stand-in for the sandbox container of runtimes that need one: it sleeps until a signal
// and reaps what a shared PID namespace leaves to it. With -v it says what it is and ends, by which kubeadm
// tries whether a cluster runs Jobs before it is upgraded.
package main

import (
	"fmt"
	"os"
	"os/signal"
	"slices"
	"syscall"
)

func main() {
	if slices.Contains(os.Args[1:], "-v") {
		fmt.Println("pause, a stand-in made by trivet-images")
		return
	}

	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGINT, syscall.SIGTERM)
	children := make(chan os.Signal, 1)
	signal.Notify(children, syscall.SIGCHLD)
	for {
		select {
		case <-stop:
			return
		case <-children:
			for {
				if pid, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil); pid <= 0 || err != nil {
					break
				}
			}
		}
	}
}
