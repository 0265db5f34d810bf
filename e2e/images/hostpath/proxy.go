package main

import (
	"context"
	"errors"
	"io"
	"log"
	"net"
)

// join joins each connection to the socket with the next one to the other address, which the suite keeps open
// in advance. Both ends listen at all times.
func join(ctx context.Context, socket, address string) error {
	near, err := listen(socket)
	if err != nil {
		return err
	}

	far, err := listen(address)
	if err != nil {
		return errors.Join(err, near.Close())
	}

	stop := context.AfterFunc(ctx, func() {
		near.Close()
		far.Close()
	})
	defer stop()

	log.Printf("joining %s with %s", socket, address)
	for {
		one, err := near.Accept()
		if err != nil {
			return ended(ctx, err)
		}

		other, err := far.Accept()
		if err != nil {
			return errors.Join(ended(ctx, err), one.Close())
		}

		go forward(one, other)
		go forward(other, one)
	}
}

func ended(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// forward copies until either end is closed, and closes what it writes to: the other direction ends, too.
func forward(from, to net.Conn) {
	_, _ = io.Copy(to, from)
	to.Close()
}
