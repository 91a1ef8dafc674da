# Culvert. `make` alone lists the targets.

GO      ?= go
VERSION ?= 0.1.0-dev
LDFLAGS := -s -w -X github.com/culvert-dev/culvert/internal/version.Version=$(VERSION)
BIN     := bin
IMAGE   := culvert.dev/culvert-gateway:dev

.DEFAULT_GOAL := help
.PHONY: help build image demo test test-fast test-race test-fuzz test-netns test-lab lint bench deps clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  \1\t\2/' | expand -t 16

build: ## build bin/culvert, bin/culvert-deploy, bin/culvert-gateway, its image, and bin/lab
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o $(BIN)/ ./node/cmd/culvert ./gateway/cmd/culvert-gateway ./deploy/cmd/culvert-deploy ./deploy/cmd/culvert-image
	$(BIN)/culvert-image --binary $(BIN)/culvert-gateway --tag $(IMAGE) -o $(BIN)/culvert-gateway.tar
	cd scripts/lab && CGO_ENABLED=0 $(GO) build -trimpath -ldflags '-s -w' -o ../../$(BIN)/lab .

deps: build ## install what the lab needs from the system's packages (root, Debian or Ubuntu)
	$(BIN)/lab deps --install

demo: deps ## show the main job: on the lab, or on your own cluster with CULVERT_DEMO=cluster
	scripts/demo/demo

test: lint test-fast test-race test-fuzz deps test-netns test-lab ## run every test (root; installs and builds what it needs)

test-fast: ## run the tests that need neither root nor a cluster
	$(GO) test ./...
	cd scripts/lab && $(GO) test ./...

test-race: ## run the tests of what runs in several goroutines under the race detector
	CGO_ENABLED=1 $(GO) test -race -short ./dns/... ./gateway/... ./internal/... ./node/...

test-fuzz: ## let every fuzz target look for new inputs for a moment (FUZZTIME=10000x)
	scripts/fuzz/fuzz $(FUZZTIME)

test-netns: ## run the tests with real packets in network namespaces (root)
	$(GO) test -tags netns -p 1 -count 1 ./node/... ./gateway/... ./dns/...

test-lab: deps ## run the scenarios on a real cluster in namespaces (root)
	$(GO) test -tags lab -p 1 -count 1 -timeout 40m -v ./scripts/e2e/...
	cd scripts/lab && $(GO) test -tags lab -count 1 -timeout 20m ./...

lint: ## gofmt, go vet and staticcheck
	@out=$$(gofmt -l $$(git ls-files '*.go')); test -z "$$out" || { echo "not gofmt-ed:"; echo "$$out"; exit 1; }
	$(GO) vet -tags 'netns lab' ./...
	cd scripts/lab && $(GO) vet -tags lab ./...
	$(GO) tool staticcheck -tags 'netns lab' ./...

bench: deps ## measure, beside named baselines, and rewrite docs/benchmarks.md (root)
	$(GO) run ./scripts/bench

clean: ## remove what build made
	rm -rf $(BIN)
