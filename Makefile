# The SIMD experiment of Go makes the pure-Go backend several times faster; everything also builds and passes without it.
GO      ?= go
SIMD    ?= $(if $(filter amd64,$(shell $(GO) env GOARCH)),simd)
export GOEXPERIMENT := $(SIMD)

# The names of Python mergekit's commands: cmd/mergekit/peers.go.
PEERS = mergekit-yaml mergekit-multi mergekit-extract-lora mergekit-moe mergekit-tokensurgeon mergekit-layershuffle mergekit-pytorch mergekit-legacy bakllama

.PHONY: build test lint bench fuzz clean

build:
	$(GO) build -trimpath $(if $(VERSION),-ldflags "-X main.version=$(VERSION)") -o bin/mergekit ./cmd/mergekit
	for name in $(PEERS); do ln -sf mergekit bin/$$name; done

test:
	$(GO) vet ./...
	$(GO) test ./...

lint:
	gofmt -l $$(git ls-files '*.go') | (! grep .)
	golangci-lint run

bench:
	$(GO) test -run '^$$' -bench . ./tensors ./internal/backend/block ./merge/stream

# Every parser's fuzz target, five minutes each.
FUZZTIME ?= 5m
fuzz:
	scripts/fuzz $(FUZZTIME)

clean:
	rm -rf bin
