# trivet: make help lists the targets.
SHELL := /bin/bash
.DEFAULT_GOAL := help

VERSION ?= v0.1.0
LDFLAGS := -s -w -X github.com/trivet-node/trivet/internal/program.Version=$(VERSION)
PROGRAMS := node/cmd/trivet-node cri/cmd/trivet-cri cri/cmd/trivet-monitor cni/cmd/trivet-cni cni/cmd/trivet-netd csi/cmd/trivet-csi
export CGO_ENABLED := 0

.PHONY: help
help: ## list the targets
	@grep -hE '^[a-z][a-z0-9-]*:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9-]+):.*## /\1\t/' | expand -t 14

.PHONY: build
build: ## build the six programs into bin/
	@mkdir -p bin
	@for p in $(PROGRAMS); do echo "build $$(basename $$p)"; go build -trimpath -ldflags '$(LDFLAGS)' -o bin/ ./$$p || exit 1; done

.PHONY: lint
lint: ## gofmt, go vet and, where installed, golangci-lint
	@test -z "$$(gofmt -l $$(git ls-files '*.go'))" || { gofmt -l $$(git ls-files '*.go'); echo 'run gofmt -w on these'; exit 1; }
	go vet ./...
	@if command -v golangci-lint >/dev/null; then golangci-lint run ./...; else echo 'golangci-lint is not installed: skipped'; fi

.PHONY: test-unit
test-unit: ## go vet and the tests that need no privileges
	go vet ./...
	go test ./...

.PHONY: test
test: test-unit ## everything that CI runs

-include e2e/build.mk
