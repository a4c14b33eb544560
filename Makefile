# Short names for the steps of .ci/run, which has the commands: CI and people run
# the same ones.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
MAKEFLAGS += --warn-undefined-variables --no-builtin-rules --no-print-directory
.DEFAULT_GOAL := help

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "%-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: build
build: ## Build bin/tandem
	@.ci/run build

.PHONY: test
test: ## Run the tests
	@.ci/run test

.PHONY: race
race: ## Run the tests under the race detector
	@.ci/run race

.PHONY: lint
lint: ## Check format, and what golangci-lint and go vet find
	@.ci/run format lint

.PHONY: generate
generate: ## Write all generated code anew (protobuf, assembly)
	@.ci/run generate

.PHONY: checkgenerate
checkgenerate: ## Fail if generating changes anything
	@.ci/run generated

.PHONY: fuzz
fuzz: ## Fuzz each target for FUZZTIME (default 3s)
	@.ci/run fuzz

.PHONY: faults
faults: ## Kill commands, and fail their system calls, FAULT_TRIALS times (default 300)
	@.ci/run faults

.PHONY: chaos
chaos: ## Break what a server asks its S3 store, for CHAOS_TIME (default 30m)
	@.ci/run chaos

.PHONY: bench
bench: ## Run the benchmarks that match BENCH (default all)
	@.ci/run bench

.PHONY: vulncheck
vulncheck: ## Look for known vulnerabilities (needs the network)
	@.ci/run vulncheck

.PHONY: ci
ci: ## Run every check that a change must pass
	@.ci/run
