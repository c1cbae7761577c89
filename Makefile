# The one command runner: what a person or CI runs is a target here.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

TARGET := $(or $(CARGO_TARGET_DIR),target)
CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/hubbub
WEIGHTS := $(CACHE)/SmolLM2-135M-Instruct.Q8_0.gguf
DATA ?= data
LISTEN ?= 127.0.0.1:8080
WIDGET_SOURCES := $(shell find widget/src widget/demo widget/scripts -type f 2>/dev/null)
NPM_CI := npm ci --ignore-scripts --no-audit --no-fund --loglevel=error

help: ## Show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 16

setup: ## Install what building, running and testing needs (idempotent)
	@scripts/setup.sh
	@$(MAKE) --no-print-directory widget/node_modules/.installed model

# Built with everything else: alone it would compile its dependencies with other features, twice.
model: widget ## Fetch and convert the demo model (idempotent)
	@test -f "$(WEIGHTS)" || { \
	  cargo build --locked --workspace --bins && \
	  HUBBUB_MODEL_BIN="$$(realpath $(TARGET)/debug/hubbub-model)" model/fetch.sh "$(CACHE)"; }

widget/node_modules/.installed: widget/package-lock.json
	cd widget && $(NPM_CI) && touch node_modules/.installed

widget/dist/frame.html: widget/node_modules/.installed $(WIDGET_SOURCES)
	cd widget && npm run --silent build && touch dist/frame.html

widget: widget/dist/frame.html ## Build the widget

build: widget ## Build everything
	cargo build --locked --workspace --bins

run: setup build ## Chat with a real model at a printed URL
	$(TARGET)/debug/hubbub serve --demo --listen $(LISTEN) --data-dir $(DATA)

test: setup lint test-rust test-widget test-browser ## Everything CI runs

test-rust: widget model ## Rust tests: units, actors on virtual time, server against a real PostgreSQL
	HUBBUB_MODEL_FILE="$(WEIGHTS)" cargo test --locked --workspace

test-widget: widget/node_modules/.installed ## Widget tests: types, lint, size budget, units
	cd widget && npm test --silent

test-browser: build ## Chromium against the widget's fake server, then against the real server
	cd widget && npm run --silent test:browser
	tests/browser/run.sh "$$(realpath $(TARGET)/debug)"

lint: widget ## Formatting, clippy, licences and sources
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	cargo-deny --locked check licenses bans sources

release: widget ## Build the optimised server, its symbols in a file beside it
	cargo build --locked --release -p hubbub --bin hubbub
	@mkdir -p $(TARGET)/release/dist
	cd $(TARGET)/release/dist && \
	  objcopy --only-keep-debug ../hubbub hubbub.debug && \
	  objcopy --strip-unneeded --add-gnu-debuglink=hubbub.debug ../hubbub hubbub

load: widget ## Load the server with a simulated model and print the figures (release build)
	cargo build --locked --release -p hubbub -p hubbub-loadtest
	$(TARGET)/release/load run --hubbub $(TARGET)/release/hubbub --report load-report.json

bench: widget ## Compare with a bare server, five runs: one core each, then chats on two cores (an hour)
	cargo build --locked --release -p hubbub -p hubbub-loadtest
	$(TARGET)/release/load bench --report bench-one-core.json
	$(TARGET)/release/load bench --server-cpus 0,1 --load-cpus 0,1 --only-chats --chats 500,1000 \
	  --report bench-two-cores.json

chaos: widget ## Kill the server many times while visitors chat: make chaos KILLS=1000 SEED=1
	KILLS="$(KILLS)" SEED="$(SEED)" cargo test --locked --test server -- \
	  --ignored --exact --nocapture kills::what_is_acknowledged_survives_many_kills

ci: test ## What .ci/run runs

.PHONY: help setup model widget build run test test-rust test-widget test-browser lint release load bench chaos ci
