.DEFAULT_GOAL := help
.PHONY: help run test test-examples test-deploy test-browser chaos fuzz bench day check audit dist schemas

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /  make \1	/p' Makefile

run: ## the whole system: servers, API, consumer, a demo key; Ctrl-C ends it, the data stays
	@dev/run

test: ## every test but test-examples, test-deploy and test-browser, on servers of its own
	@dev/prerequisites
	@dev/stack exec -- cargo test --workspace --locked

test-examples: ## the subscribers of examples/, in four languages, on servers of their own
	@examples/test

test-browser: ## the console in Chromium, on servers of its own; UPDATE_SCREENSHOTS=1 renews docs/images
	@api/browser/run

test-deploy: ## the Helm chart, the units of systemd, Prometheus and Grafana of the compose file
	@deploy/test

chaos: ## faults at random under load, for SECONDS=600; CHAOS_SEED repeats a run
	@dev/prerequisites
	CHAOS_SECONDS=$(or $(SECONDS),600) cargo test -p leads-consumer --locked --test it chaos:: -- --nocapture

fuzz: ## inputs that break a promise, searched by coverage for SECONDS=60 a target; TARGETS="create batch"
	@fuzz/run $(or $(SECONDS),60) $(TARGETS)

schemas: ## shared/schemas anew from the types of the events
	UPDATE_SCHEMAS=1 cargo test -p leads-shared --locked --test it schemas::the_documents

check: ## formatting, lints, shell scripts, docs, licences and sources of what is built on
	@dev/prerequisites
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	@dev/shellcheck
	@dev/deny
	RUSTDOCFLAGS='-D warnings' cargo doc --no-deps --workspace --locked

audit: ## known vulnerabilities of what is built on; fails when their database can't be reached
	@dev/deny --advisories

dist: ## a release of this machine's kind in target/dist: archive, symbols, list of parts, checksums
	@dev/prerequisites
	@dev/dist

bench: ## the figures and plots of docs/benchmarks.md, on servers of its own; ten minutes
	@bench/run

day: ## a day of a realistic pipeline through a running "make run"
	@bench/day
