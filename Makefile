# make help lists the targets.
GO ?= go
BIN := bin

.PHONY: help build deps check test vet lint unit e2e fuzz bench generate clean

help: ## list the targets
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-10s %s\n", $$1, $$2}'

build: ## build the three programs into bin/
	$(GO) build -trimpath -o $(BIN)/ ./cmd/...

deps: ## install what the tests need and is missing (Debian, Go and npm packages)
	./deps.sh

check: vet lint unit ## vet, staticcheck, architecture and race-enabled tests, without e2e
	@echo "check: all good"

test: deps vet lint unit e2e ## everything: what CI runs, enough on a bare Debian machine with Go
	@echo "test: all good"

vet: ## gofmt and go vet
	@bad="$$(git ls-files '*.go' | xargs gofmt -l)"; if [ -n "$$bad" ]; then echo "not gofmt-ed:"; echo "$$bad"; exit 1; fi
	$(GO) vet ./...
	cd e2e && $(GO) vet ./...

lint: ## staticcheck
	$(GO) tool staticcheck ./...

unit: ## tests of the module, with the race detector
	$(GO) test -race ./...

e2e: ## stories run by unmodified SDK clients
	cd e2e && PATH="$(CURDIR)/e2e/js/.node/bin:$$PATH" $(GO) test -count=1 ./...

fuzz: ## each fuzz target for 20 seconds
	@set -e; $(GO) list ./... | while read -r p; do \
		for f in $$($(GO) test -list '^Fuzz' $$p | grep '^Fuzz' || true); do \
			echo "== $$p $$f"; $(GO) test -run '^$$' -fuzz "^$$f\$$" -fuzztime 20s $$p; done; done

bench: ## benchmarks; see bench/README.md for the method
	$(GO) test -run '^$$' -bench . -benchtime 2s ./bench/...

generate: ## build the programs for the kernel anew (clang 14, as Debian 12 has it)
	$(GO) generate ./...

clean: ## remove what was built
	rm -rf $(BIN) e2e/js/node_modules
