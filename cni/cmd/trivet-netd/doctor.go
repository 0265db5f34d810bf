package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"k8s.io/klog/v2"

	"github.com/trivet-node/trivet/cni/netd"
	"github.com/trivet-node/trivet/cni/netd/doctor"
	"github.com/trivet-node/trivet/internal/program"
	"github.com/trivet-node/trivet/internal/retry"
)

const (
	// patience is how long the API server may take to answer.
	patience = 10 * time.Second
	// secondLook is after how long what is wrong is looked at again: a daemon that runs may be about to
	// repair it, and a pod about to come or go.
	secondLook = 2 * time.Second
)

var errWrong = errors.New("something is wrong")

// diagnose prints what is wrong.
func diagnose(ctx context.Context, env *program.Env) error {
	o, err := parse(env, aboutDoctor)
	if err != nil {
		return err
	}
	if err := program.RequireRoot(); err != nil {
		return err
	}
	klog.SetSlogLogger(env.Log)

	found, err := examine(ctx, o)
	if err == nil && doctor.IsWrong(found) {
		if err := retry.Sleep(ctx, secondLook); err != nil {
			return err
		}
		again, err := examine(ctx, o)
		if err != nil {
			return err
		}
		found = doctor.Lasting(found, again)
	}

	for _, f := range found {
		fmt.Fprintln(env.Stdout, f)
	}
	if err == nil && doctor.IsWrong(found) {
		err = errWrong
	}
	return err
}

func examine(ctx context.Context, o options) ([]doctor.Finding, error) {
	api, err := apiConfig(o.kubeconfig)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()

	return netd.Examine(ctx, api, o.Config)
}
