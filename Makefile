.DEFAULT_GOAL := help
.PHONY: help demo demo-down test chaos lint deny sbom reproducible generate golden fuzz bench images cluster-up cluster-down

cluster := tests/cluster/cluster

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: ## Run one CrewJob on a Kubernetes cluster made for it (CLUSTER=kind, k3d, minikube, own; current: on yours)
	@tests/cluster/demo

demo-down: ## Remove what `make demo` made
	@tests/cluster/demo down

test: ## Run every test, the end-to-end ones on a real cluster included (SUITES="rust loop interop chart worker gateway gitops e2e chaos")
	@tests/run $(SUITES)

chaos: ## Break everything at random while jobs flow, on a cluster made for it; judge each job (tests/chaos/run --help)
	@tests/chaos/run

lint: ## Check format, lints and the pure layers
	cargo fmt --check
	cargo check --lib --no-default-features
	cargo clippy --all-targets --all-features -- -D warnings

deny: ## Check licences, advisories and sources of all dependencies by deny.toml; installs cargo-deny, and needs the network
	@command -v cargo-deny >/dev/null || cargo install --locked cargo-deny
	cargo deny check

sbom: ## Write an SPDX document of what each image holds to target/sbom, and validate it
	@release/sbom

reproducible: ## Build the image's program twice from the last commit, in two folders, and compare
	@release/reproducible

generate: ## Write what is generated: crds/, the chart's copy of them, docs/api.md, docs/metrics.md
	CREWJOB_GENERATE=1 cargo test --quiet --test it generated
	cp crds/*.yaml charts/crewjob-operator/crds/

golden: ## Record the golden messages from a real Celery again
	python3 tests/golden/record.py

fuzz: ## Feed decoders and native worker hostile input, each for FUZZ_SECONDS (600); needs the nightly toolchain and cargo-fuzz
	CREWJOB_FUZZ_CORPUS=fuzz/corpus cargo test --quiet --test it seed_of_the_fuzzer
	for target in decoders worker; do \
	  cargo +nightly fuzz run -s none $$target fuzz/corpus/$$target -- -max_len=8192 -rss_limit_mb=512 -timeout=10 -max_total_time=$(or $(FUZZ_SECONDS),600) -print_final_stats=1 || exit; \
	done

bench: ## Measure the program as it is in the image; one JSON line per measure (BENCH_QUICK=1: in under a minute)
	@$(cluster) prepare cargo python3
	@RUSTFLAGS="-C target-feature=+crt-static" cargo bench --quiet --bench crewjob --target "$$(rustc --print host-tuple)"

images: ## Build the images of operator and worker from their Dockerfiles; print the archives
	@$(cluster) images

cluster-up: ## Bring up a one-machine Kubernetes cluster
	@$(cluster) up

cluster-down: ## Remove it
	@$(cluster) down
