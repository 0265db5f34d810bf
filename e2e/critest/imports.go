//go:build imports

// Package critest pins what `go test -c sigs.k8s.io/cri-tools/cmd/critest` needs, so that the published
// critest is built from the module proxy with every checksum known. It is never compiled itself: the build
// tag is never set; only go mod tidy reads the imports.
package critest

import (
	_ "github.com/onsi/ginkgo/v2"
	_ "github.com/onsi/ginkgo/v2/ginkgo"
	_ "github.com/onsi/gomega"
	_ "sigs.k8s.io/cri-tools/pkg/benchmark"
	_ "sigs.k8s.io/cri-tools/pkg/common"
	_ "sigs.k8s.io/cri-tools/pkg/framework"
	_ "sigs.k8s.io/cri-tools/pkg/validate"
	_ "sigs.k8s.io/cri-tools/pkg/version"
)
