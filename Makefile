# Wrenn. `make help` lists what there is.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
# The steps of a check go one after the other, whatever -j says; cargo uses all processors anyway.
.NOTPARALLEL:

export WRENN_DIR ?= $(CURDIR)/.wrenn
# Where rustup puts cargo, for shells that have not been told.
export PATH := $(PATH):$(HOME)/.cargo/bin
CARGO ?= cargo
export CARGO_TARGET_DIR := $(abspath $(or $(CARGO_TARGET_DIR),target))
RUST_MIN := 1.95

# One profile for everything: lints, tests and the stack share build scripts, proc macros and C code.
FLAGS := --release --locked
BIN := $(CARGO_TARGET_DIR)/release
# Guest programs are static. With --target the flag reaches neither build scripts nor proc macros,
# and their artifacts have a directory of their own, so the main build stays as it is.
GUEST_TARGET := x86_64-unknown-linux-gnu
GUEST_BIN := $(CARGO_TARGET_DIR)/$(GUEST_TARGET)/release

# What building needs, what running needs.
APT_BUILD := ca-certificates curl gcc libc6-dev make
APT_RUN := cpio debian-archive-keyring e2fsprogs iproute2 mmdebstrap nftables qemu-system-x86 seabios
# What checks need: the S3 server of the object store's tests and many clients of the edge's are Python
# packages; the ACME server of the certificates' tests, a browser and nghttp are Debian's.
APT_CHECK := chromium nghttp2-client pebble python3-venv
# What the harness is measured beside.
APT_BENCH := haproxy nghttp2-client nginx-light wrk
DENY_VERSION := 0.20.2
MACHETE_VERSION := 0.9.2

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' Makefile

.PHONY: dev
dev: images ## Build everything, start the stack on loopback and print a curl that works
	@$(BIN)/wrenn dev up

.PHONY: stop
stop: ## Stop the stack and everything that runs in it
	@if [ -x $(BIN)/wrenn ]; then $(BIN)/wrenn dev down; else echo "nothing was built"; fi

.PHONY: build
build: tools ## Build the binaries, static guest programs included
	@$(CARGO) build $(FLAGS) --workspace $(TARGETS)
	@RUSTFLAGS="-C target-feature=+crt-static" \
		$(CARGO) build $(FLAGS) --target $(GUEST_TARGET) -p envd -p guest-init

.PHONY: dist
dist: dist-edge ## Build the programs as production wants them, into target/dist: slow to build, fast to run
	@$(CARGO) build --locked --profile dist --workspace --exclude edge
	@RUSTFLAGS="-C target-feature=+crt-static" \
		$(CARGO) build --locked --profile dist --target $(GUEST_TARGET) -p envd -p guest-init

# The edge is built twice: the first counts what runs how often, the second is made for that. The program
# and its bench are built together, so that they share the crates that were counted; with --target, so
# that neither build scripts nor proc macros count.
PGO := $(CARGO_TARGET_DIR)/pgo
BUILD_PGO = $(CARGO) build --locked --profile dist --target $(GUEST_TARGET) --target-dir $(PGO) \
	-p edge -p edge-proxy --bin edge --example bench_edge
OF_PGO := $(PGO)/$(GUEST_TARGET)/dist

.PHONY: dist-edge
dist-edge: dist-tools
	@$(CARGO) build --locked --profile dist -p edge-proxy -p loadtest-wire \
		--example bench_upstream --example bench_naive --example edge_load
	@RUSTFLAGS="-C profile-generate=$(PGO)/unused" $(BUILD_PGO)
	@python3 loadtest/edge/train.py --edge $(OF_PGO)/examples/bench_edge --bin-dir $(CARGO_TARGET_DIR)/dist \
		--dir $(PGO)/run --out $(PGO)/edge.profdata
	@RUSTFLAGS="-C profile-use=$(PGO)/edge.profdata" $(BUILD_PGO)
	@install $(OF_PGO)/edge $(CARGO_TARGET_DIR)/dist/edge
	@install $(OF_PGO)/examples/bench_edge $(CARGO_TARGET_DIR)/dist/examples/bench_edge

.PHONY: images
images: build ## Build kernel, initramfs and root file system if their inputs changed
	@$(BIN)/wrenn-images build --envd $(GUEST_BIN)/envd --init $(GUEST_BIN)/guest-init

# A check builds the tests together with the programs: apart, each dependency would be built twice, as
# tests want more of some of them. Not the examples: they are benches, which clippy sees.
WITH_TESTS := --lib --bins --tests

.PHONY: check
check: TARGETS := $(WITH_TESTS)
check: tools check-tools fmt clippy doc deny machete images test e2e ## Run every check, as CI does
	@awk '/^test result:/ { p += $$4; f += $$6; i += $$8 } \
		END { printf "check passed: %d tests passed, %d failed, %d ignored\n", p, f, i }' \
		$(CARGO_TARGET_DIR)/test.log $(CARGO_TARGET_DIR)/e2e.log

.PHONY: bench
bench: bench-tools images bench-build ## Measure and rewrite the tables of BENCHMARKS.md; the machine should be quiet
	@$(BIN)/wrenn dev down > /dev/null 2>&1 || true
	@loadtest/reach.sh $(BIN)/loadtest | $(BIN)/loadtest insert --stamp BENCHMARKS.md reach
	@$(BIN)/loadtest calibrate | $(BIN)/loadtest insert --stamp BENCHMARKS.md calibration
	@$(MAKE) --no-print-directory bench-engine
	@$(BIN)/wrenn dev up > /dev/null
	@$(BIN)/wrenn deploy images/functions/echo > /dev/null
	@$(BIN)/loadtest preset wrenn-bench --budgets loadtest/budgets.toml \
		--json $(WRENN_DIR)/bench.json --html $(WRENN_DIR)/bench.html
	@$(BIN)/loadtest report $(WRENN_DIR)/bench.json --markdown --brief | $(BIN)/loadtest insert BENCHMARKS.md bench
	@$(BIN)/wrenn dev down > /dev/null

# Everything that bench-engine runs.
.PHONY: bench-build
bench-build:
	@$(CARGO) build $(FLAGS) --workspace --bins --examples

# The benches of the memory engine and the pool, each into its own place of the document. They make
# machines and page servers of their own, so no stack may run beside them.
ENGINE := --wrenn-dir $(WRENN_DIR) --bin-dir $(BIN)
insert = $(BIN)/loadtest insert --stamp BENCHMARKS.md

.PHONY: bench-engine
bench-engine: bench-build
	@$(BIN)/examples/page_server_bench | $(insert) pager
	@$(BIN)/examples/restore_bench $(ENGINE) --memory-out $(WRENN_DIR)/bench.memory | $(insert) restore
	@$(BIN)/examples/blank_times | $(insert) blank
	@$(BIN)/examples/density_bench $(ENGINE) | $(insert) density
	@$(BIN)/examples/generations_bench $(ENGINE) | $(insert) generations
	@$(BIN)/examples/burst_bench $(ENGINE) | $(insert) burst
	@$(BIN)/examples/claims_bench | $(insert) claims
	@$(BIN)/examples/codec_bench $(WRENN_DIR)/bench.memory | $(insert) codec
	@rm -f $(WRENN_DIR)/bench.memory
	@$(BIN)/examples/capture_bench | $(insert) capture
	@$(BIN)/pool-sim --markdown | $(insert) simulator

# The edge beside other proxies; those that no Debian package has come from PyPI, into a venv.
.PHONY: bench-edge
bench-edge: bench-tools dist-edge ## Measure the edge beside other proxies; the machine should be quiet
	@$(CARGO) build $(FLAGS) -p loadtest
	@python3 loadtest/edge/compare.py --bin-dir $(CARGO_TARGET_DIR)/dist --dir $(WRENN_DIR)/bench-edge \
		--venv $(WRENN_DIR)/bench-edge/venv --install | $(insert) edge

.PHONY: clean
clean: stop ## Stop the stack; remove what was built, images and sandboxes included
	@$(CARGO) clean
	@rm -rf .wrenn

.PHONY: fmt
fmt:
	@$(CARGO) fmt --all --check

.PHONY: clippy
clippy:
	@$(CARGO) clippy $(FLAGS) --workspace --all-targets -- -D warnings

.PHONY: doc
doc:
	@RUSTDOCFLAGS="-D warnings" $(CARGO) doc $(FLAGS) --workspace --no-deps

.PHONY: deny
deny:
	@$(CARGO) deny --locked check bans licenses sources

.PHONY: machete
machete:
	@$(CARGO) machete

TESTS := $(FLAGS) --workspace --no-fail-fast

.PHONY: test
test:
	@{ $(CARGO) test $(TESTS) $(WITH_TESTS) && $(CARGO) test $(TESTS) --doc; } 2>&1 \
		| tee $(CARGO_TARGET_DIR)/test.log

# The tests that need all of it: the stack with real machines, the harness, other people's clients.
.PHONY: e2e
e2e:
	@$(CARGO) test $(TESTS) --test e2e --test harness --test outside 2>&1 | tee $(CARGO_TARGET_DIR)/e2e.log

.PHONY: bench-tools
bench-tools:
	@$(MAKE) --no-print-directory tools APT_RUN="$(APT_RUN) $(APT_BENCH)"

# llvm-profdata has to be of the compiler's LLVM: rustup's, or else Debian's of that number.
.PHONY: dist-tools
dist-tools: tools
	@llvm=llvm-$$(rustc -vV | sed -n 's/^LLVM version: \([0-9]*\).*/\1/p'); \
	if [ -x $$(rustc --print target-libdir)/../bin/llvm-profdata ]; then llvm=; \
	elif [ ! -x /usr/lib/$$llvm/bin/llvm-profdata ] && rustup component add llvm-tools 2> /dev/null; then llvm=; \
	fi; \
	$(MAKE) --no-print-directory tools APT_RUN="$(APT_RUN) openssl python3 $$llvm"

# Installs only what is missing, so that a second start asks nobody.
.PHONY: tools
tools:
	@missing=$$(for package in $(APT_BUILD) $(APT_RUN); do \
		dpkg-query --show --showformat='$${db:Status-Status}\n' $$package 2>/dev/null \
			| grep -qx installed || echo $$package; done); \
	if [ -n "$$missing" ]; then \
		if [ $$(id -u) != 0 ]; then echo "run as root, or install:" $$missing >&2; exit 1; fi; \
		export DEBIAN_FRONTEND=noninteractive; \
		apt-get update; apt-get install --yes --no-install-recommends $$missing; \
	fi
	@have=$$($(CARGO) --version 2>/dev/null | cut -d' ' -f2 || true); \
	if [ "$$(printf '%s\n' $(RUST_MIN) "$${have:-0}" | sort -V | head -1)" != $(RUST_MIN) ]; then \
		echo "cargo $(RUST_MIN) or newer is needed, found $${have:-none}. Install it with" >&2; \
		echo "  curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y" >&2; \
		echo '  . "$$HOME/.cargo/env"' >&2; \
		exit 1; \
	fi

.PHONY: check-tools
check-tools:
	@$(MAKE) --no-print-directory tools APT_RUN="$(APT_RUN) $(APT_CHECK)"
	@pool/remote/tests/s3-server.sh --install
	@loadtest/clients/python.sh --install
	@command -v cargo-deny > /dev/null || $(CARGO) install --locked cargo-deny@$(DENY_VERSION)
	@command -v cargo-machete > /dev/null || $(CARGO) install --locked cargo-machete@$(MACHETE_VERSION)
