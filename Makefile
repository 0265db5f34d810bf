# trivet: make help lists the targets.
SHELL := /bin/bash
.DEFAULT_GOAL := help

VERSION ?= v0.1.0
LDFLAGS := -s -w -X github.com/trivet-node/trivet/internal/program.Version=$(VERSION)
PROGRAMS := node/cmd/trivet-node cri/cmd/trivet-cri cri/cmd/trivet-monitor cni/cmd/trivet-cni cni/cmd/trivet-netd csi/cmd/trivet-csi release/installer/cmd/trivet-installer
export CGO_ENABLED := 0
# The same for programs and tests, or Go compiles what they share twice; and a clone of another user's has no version that Go may read.
# grpcnotrace: without gRPC's trace pages no program links a template engine, which would keep every exported method alive: 4 MB each.
export GOFLAGS := $(filter-out -trimpath -buildvcs=% -tags=grpcnotrace,$(GOFLAGS)) -trimpath -buildvcs=false -tags=grpcnotrace
# Without a login as root, PATH may lack where ip, nft and mkfs are.
export PATH := $(PATH):/usr/sbin:/sbin

ifeq ($(shell command -v go),)
$(error trivet is built with Go 1.26 or newer, and there is no go in PATH: see https://go.dev/doc/install)
endif

.PHONY: help
help: ## list the targets
	@grep -hE '^[a-z][a-z0-9-]*:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9-]+):.*## /\1\t/' | expand -t 14

.PHONY: build
build: ## build the six programs, and the installer of two, into bin/
	@mkdir -p bin
	@for p in $(PROGRAMS); do e2e/progress.sh $$(basename $$p) -ldflags '$(LDFLAGS)' -o bin/ -- ./$$p || exit 1; done

.PHONY: lint
lint: .trivet/bin/golangci-lint ## gofmt and the linters of .golangci.yml, pinned in internal/lint
	@test -z "$$(gofmt -l $$(git ls-files '*.go'))" || { gofmt -l $$(git ls-files '*.go'); echo 'run gofmt -w on these'; exit 1; }
	.trivet/bin/golangci-lint run ./...

.trivet/bin/golangci-lint: internal/lint/go.mod internal/lint/go.sum
	@mkdir -p .trivet/bin
	@cd internal/lint && GOFLAGS='-trimpath -buildvcs=false' ../../e2e/progress.sh golangci-lint \
		-ldflags '-s -w' -o ../../$@ -- github.com/golangci/golangci-lint/v2/cmd/golangci-lint

.PHONY: page
page: ## what the source is like to read, in figures, part by part
	@go run ./internal/page/cmd/trivet-page

.PHONY: pictures
pictures: ## draw the pictures of the documents from docs/data
	@go run ./e2e/cmd/trivet-pictures

.PHONY: test-unit
test-unit: ## go vet and the tests; those that need root skip with a reason when it is missing
	go vet ./...
	go test ./...
	$(MAKE) --no-print-directory test-monitoring test-deploy test-operator

.PHONY: test-operator
test-operator: ## the operator of etcd that the cluster tests run
	cd e2e/operator && GOFLAGS='-trimpath -buildvcs=false' go vet ./... && GOFLAGS='-trimpath -buildvcs=false' go test ./...

# Go keeps the results of tests that read nothing new in their module. What these two read is beside theirs.
.PHONY: test-deploy
test-deploy: ## the kustomize bases of deploy, rendered and decoded as a strict API server does
	cd deploy/check && GOFLAGS='-trimpath -buildvcs=false' go test -count=1 ./...

.PHONY: test-monitoring
test-monitoring: ## the rules and the dashboard of deploy/monitoring, by Prometheus' own parsers
	cd deploy/monitoring/check && GOFLAGS='-trimpath -buildvcs=false' go test -count=1 ./...

.PHONY: test-root
test-root: install ## the tests that need root, in namespaces of their own; a skip is a failure
	TRIVET_MUST_RUN=1 go test -count=1 $$(dirname $$(git ls-files '*_root_test.go') | sort -u | sed 's#^#./#')

.PHONY: test
test: install ## everything that CI runs: go vet, unit and root tests, csi-sanity, CNI beside upstream's plugins, the cluster tests (make e2e, make e2e-claims), one mix of make seats and kubeadm's cluster on kind nodes
	go vet ./...
	go test -timeout=20m ./...
	$(MAKE) --no-print-directory test-monitoring test-deploy test-operator
	$(MAKE) --no-print-directory cni-compare
	$(MAKE) --no-print-directory e2e-claims
	$(MAKE) --no-print-directory e2e NODES=2
	$(MAKE) --no-print-directory seats CELLS=rotating SEAT_PODS=5
	$(MAKE) --no-print-directory kind-test

.PHONY: test-long
test-long: install dist-install ## what CI does not run: an operator and sidecars, what is delivered, parts put into kind and taken out, what users of kind do
	$(MAKE) --no-print-directory e2e-operator
	$(MAKE) --no-print-directory dist-twice
	TRIVET_MUST_RUN=1 $(MAKE) --no-print-directory dist-check
	$(MAKE) --no-print-directory kind-course kind-broken kind-smoke

FUZZTIME ?= 20s
.PHONY: fuzz
fuzz: ## fuzz every parser of others' bytes for FUZZTIME=20s each
	@for f in $$(grep -lE '^func Fuzz' $$(git ls-files '*_test.go')); do for name in $$(sed -nE 's/^func (Fuzz[A-Za-z0-9_]+).*/\1/p' $$f); do \
		echo "$$f $$name"; go test -run='^$$' -fuzz="^$$name$$" -fuzztime=$(FUZZTIME) -fuzzminimizetime=10x ./$$(dirname $$f) || exit 1; done; done

include release/release.mk
include e2e/build.mk
include e2e/kind/kind.mk
include e2e/vm/vm.mk
include e2e/bench/bench.mk
