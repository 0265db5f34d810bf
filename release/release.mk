# What a version is delivered as: dist/. Included by the Makefile.

ARCHITECTURES := amd64 arm64
# Equal sources, Go and packages of Debian give equal files, wherever and whenever they are built.
dist dist-twice: export SOURCE_DATE_EPOCH ?= $(shell git log -1 --format=%ct)
REVISION ?= $(shell git describe --always --dirty --abbrev=40 --exclude='*')

.PHONY: dist
dist: ## write dist/: programs, OCI images and .deb packages for amd64 and arm64, SBOMs, sums, and one archive with all of it
	@mkdir -p bin $(addprefix .trivet/dist/,$(ARCHITECTURES))
	@for arch in $(ARCHITECTURES); do \
		GOARCH=$$arch e2e/progress.sh "the programs for $$arch" -ldflags '$(LDFLAGS)' -o .trivet/dist/$$arch/ -- $(addprefix ./,$(PROGRAMS)) || exit 1; done
	@go build -o bin/ ./release/cmd/trivet-release
	@bin/trivet-release --version-name=$(VERSION) --revision=$(REVISION) --programs=.trivet/dist --cache=.trivet/debian --out=dist

.PHONY: dist-twice
dist-twice: dist ## the same, then once more elsewhere with nothing of the first build: both have the same sums
	@release/twice.sh $(VERSION) $(REVISION)

# Programs of the other architecture run under qemu-user, where Debian's package can be had; nothing is installed.
qemu := .trivet/qemu/usr/bin/qemu-aarch64-static
$(qemu):
	@mkdir -p .trivet/qemu
	@cd .trivet/qemu && { apt-get -q download qemu-user-static || { apt-get -q update && apt-get -q download qemu-user-static; }; } >/dev/null 2>&1 && \
		dpkg-deb --extract qemu-user-static_*.deb . || true

# Packages that neither look at the machine nor start other programs.
pure_packages := ./cni/netd/podcidr ./cri/spec ./csi/volume ./internal/durable ./node/plan ./release/deb

.PHONY: dist-install
dist-install: ## install what make dist-check calls beside what is there (apt; says what and why)
	@e2e/install.sh --dist

# TRIVET_MUST_RUN=1: what cannot be run is a failure, as with the other tests.
.PHONY: dist-check
dist-check: $(qemu) ## look at what make dist has written as its users do; with qemu-user (fetched) run the programs for arm64, with lintian check the packages
	@test -f dist/SHA256SUMS || { echo 'dist-check: there is no dist/SHA256SUMS: run make dist first'; exit 1; }
	@runner=; if [ "$$(go env GOHOSTARCH)" != arm64 ]; then \
		if [ -x $(qemu) ]; then runner=$(CURDIR)/$(qemu); else echo 'dist-check: no qemu-user (Debian package qemu-user-static): nothing of arm64 is run'; \
			test -z "$$TRIVET_MUST_RUN" || exit 1; fi; fi; \
	cd release/check && TRIVET_DIST=$(CURDIR)/dist TRIVET_VERSION=$(VERSION) TRIVET_ARM64_RUNNER=$$runner \
		GOFLAGS='-trimpath -buildvcs=false' go test -count=1 -v ./... | grep -vE '^=== ' ; test $${PIPESTATUS[0]} = 0 || exit 1; \
	cd $(CURDIR); TRIVET_DIST=$(CURDIR)/dist go test -count=1 -v ./e2e/packages || exit 1; \
	test -z "$$runner" || GOARCH=arm64 go test -exec "$$runner" $(pure_packages)
