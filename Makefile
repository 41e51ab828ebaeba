# AEX. `make run` shows it at work, `make test` tests all of it.
#
# One profile and one target directory for programs and tests: everything is built once.

SHELL := /bin/bash
CARGO ?= cargo
VENV ?= target/venv
CLIENTS ?= target/clients
PYTHON = $(VENV)/bin/python
MODEL ?=

# Of `install` and the packages. Programs come from where this profile leaves them.
PROFILE ?= release
BIN ?= target/$(PROFILE)
DESTDIR ?=
PREFIX ?= /usr
VERSION ?= $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)
TREE = target/package/tree
DIST ?= target/package

.PHONY: help build run test test-clients test-system test-wheel lint unit units sdk model bench bench-ledger \
	bench-policy venv clean programs install tree deb rpm wheel

help:
	@echo 'make run [MODEL=smollm2]  start a kernel on 127.0.0.1:9000 and let an agent spend its cent'
	@echo 'make test                 format, lints, units, unit, integration, clients, real model;'
	@echo '                          as root test-system as well'
	@echo 'make test-clients         agent frameworks and SDKs in their newest releases, through AEX'
	@echo 'make bench                direct, nginx and AEX side by side (release build)'
	@echo 'make bench-ledger         the ledger alone: durable holds and settles, cost of a long history'
	@echo 'make bench-policy         what a decision of policies costs; fails above 50 µs'
	@echo 'make build                the programs, in target/debug'
	@echo 'make units                scores of the systemd units, held to their limits'
	@echo 'make test-wheel           builds the wheel, installs it in an empty environment, and asks it'
	@echo 'make test-system          as root: boots a Debian, installs the .deb, attacks it'
	@echo 'make programs             the programs as they are shipped, in target/release'
	@echo 'make install [DESTDIR=] [PREFIX=/usr]  programs, units, man pages, completions'
	@echo 'make deb | rpm | wheel    packages of the same tree, in target/package'
	@echo '                          (install and packages: PROFILE=debug takes those of make build)'

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
	@{ tests/clients/setup.sh $(VENV) && tests/clients/setup-clients.sh $(CLIENTS) && \
		{ [ "$$(id -u)" != 0 ] || python3 tests/system/all.py --prepare; }; } \
		> target/venv.log 2>&1 & fetch=$$!; \
	$(MAKE) --no-print-directory lint unit || { kill $$fetch 2>/dev/null; exit 1; }; \
	wait $$fetch || { cat target/venv.log; exit 1; }
	$(MAKE) --no-print-directory sdk model test-clients test-wheel
	@if [ "$$(id -u)" = 0 ]; then $(MAKE) --no-print-directory test-system; \
		else echo 'make test: not root, so the booted system is left out: sudo make test-system'; fi

lint: units
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

programs:
ifeq ($(PROFILE),debug)
	$(CARGO) build --workspace --locked
else
	$(CARGO) build --profile $(PROFILE) --locked -p aex-ctl -p aex-admin -p aex-egress -p aex-proxy
endif

# Builds nothing: `make programs` as yourself, then `sudo make install`.
install:
	packaging/install.sh $(BIN) '$(DESTDIR)' $(PREFIX)

# What the packages are made of.
tree:
	rm -rf $(TREE)
	packaging/install.sh $(BIN) $(TREE) /usr

deb: tree
	packaging/deb/build.sh $(TREE) $(VERSION) $(DIST)

rpm: tree
	rpmbuild -bb --quiet $(RPMFLAGS) --define '_version $(VERSION)' --define '_tree $(CURDIR)/$(TREE)' \
		--define '_topdir $(CURDIR)/$(DIST)/rpmbuild' --define '_rpmdir $(CURDIR)/$(DIST)' \
		packaging/rpm/aex.spec

wheel:
	packaging/wheel/build.sh $(BIN) $(PROFILE) $(DIST)

# What `pip install` gives, tried in an empty environment.
test-wheel: build
	$(MAKE) --no-print-directory wheel PROFILE=debug
	AEX_BIN=target/debug python3 tests/clients/wheel.py $(DIST)

units:
	python3 tests/system/units.py

test-system: build
	python3 tests/system/all.py

clean:
	$(CARGO) clean
