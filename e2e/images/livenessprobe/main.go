// Command livenessprobe stands in for the sidecar of that name: it answers probes on /healthz by calling
// Probe of the CSI driver beside it in a pod.
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"net/http"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

func main() {
	driver := flag.String("csi-address", "/run/csi/socket", "socket of the driver")
	port := flag.Int("health-port", 9808, "port that serves /healthz")
	timeout := flag.Duration("probe-timeout", time.Second, "of a call of the driver")
	flag.Int("v", 0, "taken and ignored")
	flag.Parse()

	conn, err := grpc.NewClient("unix://"+*driver, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		log.Fatal(err)
	}

	mux := http.NewServeMux()
	mux.Handle("/healthz", healthz(csi.NewIdentityClient(conn), *timeout))
	log.Fatal(http.ListenAndServe(fmt.Sprintf(":%d", *port), mux))
}

// healthz is healthy when the driver says that it is ready; one that does not say is.
func healthz(driver csi.IdentityClient, timeout time.Duration) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), timeout)
		defer cancel()

		answer, err := driver.Probe(ctx, &csi.ProbeRequest{})
		if err == nil && answer.GetReady() != nil && !answer.GetReady().GetValue() {
			err = fmt.Errorf("driver is not ready")
		}

		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}

		fmt.Fprintln(w, "ok")
	})
}
