// Package rpc reports gRPC calls when they have ended, on the side of the server and on that of the client.
// What is done with it is the observer's: metric.Calls counts them.
package rpc

import (
	"context"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Observer is told about a gRPC call when it has ended. The method is the full one (/package.Service/Method);
// streams are observed once, when they have ended. It is called by many goroutines at a time.
type Observer func(method string, code codes.Code, took time.Duration)

// ServerOptions have a server report each of its calls.
func ServerOptions(observe Observer) []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.ChainUnaryInterceptor(unaryServer(observe)),
		grpc.ChainStreamInterceptor(streamServer(observe)),
	}
}

// DialOptions have a connection report each call that is made with it.
func DialOptions(observe Observer) []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithChainUnaryInterceptor(unaryClient(observe)),
		grpc.WithChainStreamInterceptor(streamClient(observe)),
	}
}

func unaryServer(observe Observer) grpc.UnaryServerInterceptor {
	return func(
		ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler,
	) (any, error) {
		start := time.Now()
		resp, err := next(ctx, req)
		observe(info.FullMethod, codeOf(err), time.Since(start))
		return resp, err
	}
}

func streamServer(observe Observer) grpc.StreamServerInterceptor {
	return func(
		srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler,
	) error {
		start := time.Now()
		err := next(srv, stream)
		observe(info.FullMethod, codeOf(err), time.Since(start))
		return err
	}
}

func unaryClient(observe Observer) grpc.UnaryClientInterceptor {
	return func(
		ctx context.Context, method string, req, reply any, conn *grpc.ClientConn,
		next grpc.UnaryInvoker, opts ...grpc.CallOption,
	) error {
		start := time.Now()
		err := next(ctx, method, req, reply, conn, opts...)
		observe(method, codeOf(err), time.Since(start))
		return err
	}
}

// streamClient observes the end of a stream also when its user lets it go by the end of its context.
func streamClient(observe Observer) grpc.StreamClientInterceptor {
	return func(
		ctx context.Context, desc *grpc.StreamDesc, conn *grpc.ClientConn, method string,
		next grpc.Streamer, opts ...grpc.CallOption,
	) (grpc.ClientStream, error) {
		start := time.Now()
		ended := grpc.OnFinish(func(err error) { observe(method, codeOf(err), time.Since(start)) })
		return next(ctx, desc, conn, method, append(opts, ended)...)
	}
}

// codeOf is the code that the other side gets for an error, which may be one of a context.
func codeOf(err error) codes.Code { return status.Code(contextError(err)) }

func contextError(err error) error {
	if _, ok := status.FromError(err); ok {
		return err
	}
	return status.FromContextError(err).Err()
}
