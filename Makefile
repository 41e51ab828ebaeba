# AEX. `make run` shows it at work, `make test` tests all of it.
#
# One profile and one target directory for programs and tests: everything is built once.

SHELL := /bin/bash
CARGO ?= cargo
VENV ?= target/venv
CLIENTS ?= target/clients
PYTHON = $(VENV)/bin/python
MODEL ?=

.PHONY: help build run test test-clients lint unit sdk model bench bench-ledger bench-policy venv clean

help:
	@echo 'make run [MODEL=smollm2]  start a kernel on 127.0.0.1:9000 and let an agent spend its cent'
	@echo 'make test                 format, lints, unit, integration, clients, real model'
	@echo 'make test-clients         agent frameworks and SDKs in their newest releases, through AEX'
	@echo 'make bench                direct, nginx and AEX side by side (release build)'
	@echo 'make bench-ledger         the ledger alone: durable holds and settles, cost of a long history'
	@echo 'make bench-policy         what a decision of policies costs; fails above 50 µs'
	@echo 'make build                the programs, in target/debug'

build:
	$(CARGO) build --workspace --locked

run: build
ifeq ($(MODEL),smollm2)
	tests/clients/setup.sh $(VENV)
	AEX_BIN=target/debug $(PYTHON) tests/clients/demo.py --model smollm2
else
	AEX_BIN=target/debug python3 tests/clients/demo.py --model '$(MODEL)'
endif

# What the registries give is fetched while the compiler works.
test:
	@mkdir -p target
	@{ tests/clients/setup.sh $(VENV) && tests/clients/setup-clients.sh $(CLIENTS); } \
		> target/venv.log 2>&1 & fetch=$$!; \
	$(MAKE) --no-print-directory lint unit || { kill $$fetch 2>/dev/null; exit 1; }; \
	wait $$fetch || { cat target/venv.log; exit 1; }
	$(MAKE) --no-print-directory sdk model test-clients

lint:
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings

# The workspace first: tests of one package run the programs of the others.
unit: build
	$(CARGO) test --workspace --locked

venv:
	tests/clients/setup.sh $(VENV)

sdk: venv
	AEX_BIN=target/debug $(PYTHON) tests/clients/sdk.py

# The programs are built already, by `make build` or `make test`.
test-clients:
	tests/clients/setup-clients.sh $(CLIENTS)
	AEX_BIN=target/debug python3 tests/clients/all.py $(CLIENTS)

model: venv
	AEX_BIN=target/debug $(PYTHON) tests/clients/smollm2.py

bench:
	$(CARGO) build --workspace --release --locked
	target/release/aex-bench $(BENCH_ARGS)
	$(MAKE) --no-print-directory bench-policy

bench-policy:
	$(CARGO) build -p aex-admin --example policy-cost --release --locked
	target/release/examples/policy-cost

bench-ledger:
	$(CARGO) build -p aex-admin -p aex-ctl -p aex-tests --release --locked
	$(CARGO) build -p aex-admin --example fill-ledger --release --locked
	target/release/aex-bench-ledger $(BENCH_ARGS)

clean:
	$(CARGO) clean
