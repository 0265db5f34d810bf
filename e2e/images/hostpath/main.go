// Command hostpath stands in for hostpathplugin, the CSI driver of the published test suite: volumes are
// directories, and files on loop devices for block volumes, in one directory of the node. Sizes of file
// systems are recorded, not enforced. With -proxy-endpoint it is no driver, but joins each connection to its
// socket with one to that address, where the suite has a driver of its own.
package main

import (
	"context"
	"flag"
	"log"
	"net"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
)

func main() {
	var d driver
	flag.StringVar(&d.name, "drivername", "hostpath.csi.k8s.io", "name of the driver")
	flag.StringVar(&d.node, "nodeid", "", "name of the node")
	flag.Int64Var(&d.maxVolumes, "maxvolumespernode", 0, "limit of volumes of a node")
	flag.BoolVar(&d.attach, "enable-attach", false, "volumes are attached before they are staged")
	flag.Int64Var(&d.maxAttached, "attach-limit", 0, "volumes attached at the same time; 0: any number")
	flag.BoolVar(&d.modify, "enable-controller-modify-volume", false, "volumes can be modified")
	mutable := flag.String("accepted-mutable-parameter-names", "", "what can be modified; empty: everything")
	directory := flag.String("statedir", "/csi-data-dir", "directory of the volumes")
	endpoint := flag.String("endpoint", "unix:///tmp/csi.sock", "socket that serves CSI")
	proxied := flag.String("proxy-endpoint", "", "address to join the socket with")
	flag.Bool("node-expand-required", true, "taken: it is always required")
	flag.Bool("enable-topology", true, "taken: it is always there")
	flag.BoolVar(&d.strict, "check-volume-lifecycle", false, "volumes that are staged are not detached")
	flag.Int("v", 0, "taken and ignored")
	flag.Parse()

	if *mutable != "" {
		d.mutable = strings.Split(*mutable, ",")
	}

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()

	run := func() error { return d.run(ctx, *endpoint, *directory) }
	if *proxied != "" {
		run = func() error { return join(ctx, *endpoint, *proxied) }
	}
	if err := run(); err != nil {
		log.Fatal(err)
	}
}

// listen listens on PATH, unix://PATH or tcp://ADDRESS.
func listen(endpoint string) (net.Listener, error) {
	if address, ok := strings.CutPrefix(endpoint, "tcp://"); ok {
		return net.Listen("tcp", address)
	}

	// A driver that was killed has left its socket.
	path := strings.TrimPrefix(endpoint, "unix://")
	_ = os.Remove(path)
	return net.Listen("unix", path)
}

func (d *driver) run(ctx context.Context, endpoint, directory string) error {
	var err error
	if d.store, err = openStore(directory); err != nil {
		return err
	}

	l, err := listen(endpoint)
	if err != nil {
		return err
	}

	server := d.server()
	stop := context.AfterFunc(ctx, server.Stop)
	defer stop()

	log.Printf("driver %s serves on %s", d.name, endpoint)
	return server.Serve(l)
}

func (d *driver) server() *grpc.Server {
	server := grpc.NewServer(grpc.UnaryInterceptor(func(
		ctx context.Context, request any, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler,
	) (any, error) {
		d.mu.Lock()
		defer d.mu.Unlock()

		answer, err := handle(ctx, request)
		note(info.FullMethod, request, err)
		return answer, err
	}))

	csi.RegisterIdentityServer(server, identity{driver: d})
	csi.RegisterControllerServer(server, controller{driver: d})
	csi.RegisterNodeServer(server, nodeService{driver: d})
	return server
}
