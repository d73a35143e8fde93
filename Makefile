# packtrust: everything from a fresh checkout. Start with `make demo` or `make test`; needs Python 3.11+, git and make.

.DEFAULT_GOAL := help
SHELL := /bin/sh
MAKEFLAGS += --no-print-directory

# Options, e.g. `make demo ARGS="--modules 5"`, `make test ARGS="-k replay"`, `make test WORKERS=4`
ARGS ?=
# Processors to use.
WORKERS ?= 2

VENV := .venv
BIN := $(VENV)/bin
PIP_TOOLS := pip-tools==7.6.2
# Everything that starts a node takes the interpreter that set-up chose.
WITH_MICROPYTHON = MICROPYTHON="$$(cat build/micropython.path)"

# The first Python that is new enough; PYTHON=... names another.
FIND_PYTHON = for p in $(PYTHON) python3 python3.13 python3.12 python3.11 python3.14; do \
	if "$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then echo "$$p"; exit 0; fi; done; \
	echo "error: no Python 3.11 or newer found: apt install python3, or name one with make PYTHON=/path/to/python3." >&2; exit 1

.PHONY: help
help: ## list the targets
	@echo "packtrust: encrypted CAN between battery nodes. Targets:"
	@sed -n 's/^\([a-z][a-z-]*\):.*## \(.*\)/  make \1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{ printf "%-20s %s\n", $$1, $$2 }'

.PHONY: setup
setup: ## make the virtual environment, install the locked packages, get MicroPython (no-op when done)
	@python=$$($(FIND_PYTHON)) && "$$python" tools/make_venv.py && "$$python" boards/unix/get_micropython.py >/dev/null

.PHONY: firmware
firmware: setup ## build the cortex-m4 firmware and MicroPython with 32 bits (no-op when done)
	@$(BIN)/python boards/cortex-m4/get_firmware.py

# Tests and benchmarks: without the firmware they skip what needs it and say why; in CI that is a failure.
.PHONY: _firmware_if_possible
_firmware_if_possible: setup
	@$(BIN)/python boards/cortex-m4/get_firmware.py || { test -z "$$CI" && echo "going on without it"; }

.PHONY: demo
demo: setup ## set up, then run the main job: a virtual pack from registration to sealed traffic
	@$(WITH_MICROPYTHON) $(BIN)/packtrust demo $(ARGS)

.PHONY: test
test: _firmware_if_possible ## set up, then run the tests (attacks and faults: see below): those that measure time first
	@$(WITH_MICROPYTHON) PYTHON=$(BIN)/python WORKERS=$(WORKERS) sh tools/run_tests.sh $(ARGS)

.PHONY: attacks
attacks: _firmware_if_possible ## carry out every attack, and its control against a weakened build, and print the table
	@$(WITH_MICROPYTHON) WORKERS=$(WORKERS) $(BIN)/python tests/attacks/table.py $(ARGS)

.PHONY: faults
faults: _firmware_if_possible ## inject every fault, power cuts above all, and print the table
	@$(WITH_MICROPYTHON) WORKERS=$(WORKERS) $(BIN)/python tests/faults/table.py $(ARGS)

.PHONY: model
model: setup ## explore all states of two real nodes within bounds, and find every planted fault (some minutes)
	@$(BIN)/python tests/model/run.py $(ARGS)

.PHONY: fuzz
fuzz: setup ## fuzz every parser for 60 s, guided by coverage, and print branch coverage (ARGS="--seconds 10 --only channel")
	@$(BIN)/python tests/fuzz/run.py $(ARGS)

.PHONY: defences
defences: setup ## take each defence out in turn, by overlay, and show what turns red (some minutes)
	@WORKERS=$(WORKERS) $(BIN)/python tests/attacks/defences.py $(ARGS)

.PHONY: lint
lint: setup ## ruff (rules and format) and mypy
	@echo "ruff check";  $(BIN)/ruff check .
	@echo "ruff format"; $(BIN)/ruff format --check .
	@echo "mypy";        $(BIN)/mypy

.PHONY: check
check: lint stubs docs-check ## lint, stubs, and that the documentation and the generated files are up to date

.PHONY: stubs
stubs: setup ## type-check core, firmware and boards against the stubs of MicroPython and CircuitPython
	@$(BIN)/python tools/check_stubs.py $(ARGS)

.PHONY: docs-check
docs-check: setup ## check links, changelog fragments and that the generated files are up to date
	@$(BIN)/python tools/check_docs.py
	@$(BIN)/towncrier build --draft --version next >build/changelog-draft.md && echo "changelog fragments are well-formed"
	@$(BIN)/python tools/generated.py --check

.PHONY: generate
generate: setup ## write the generated files (message page, DBC) again
	@$(BIN)/python tools/generated.py

.PHONY: bench
bench: _firmware_if_possible ## measure speed and size on CPython and MicroPython
	@$(WITH_MICROPYTHON) $(BIN)/python tests/bench/run.py $(ARGS)

.PHONY: format
format: setup ## let ruff format and fix what it can
	@$(BIN)/ruff check --fix . ; $(BIN)/ruff format .

.PHONY: lock
lock: setup ## pin the newest packages requirements.in allows in requirements.lock (needs the network)
	@test -x build/lock/bin/pip-compile || { $(BIN)/python -m venv build/lock && build/lock/bin/python -m pip install -q "$(PIP_TOOLS)"; }
	@CUSTOM_COMPILE_COMMAND="make lock" build/lock/bin/pip-compile --quiet --upgrade --generate-hashes --strip-extras \
		--allow-unsafe --no-emit-index-url --no-emit-trusted-host --no-emit-find-links --no-annotate \
		--output-file requirements.lock requirements.in
	@CUSTOM_COMPILE_COMMAND="make lock" build/lock/bin/pip-compile --quiet --upgrade --generate-hashes --strip-extras \
		--allow-unsafe --no-emit-index-url --no-emit-trusted-host --no-emit-find-links --no-annotate \
		--output-file requirements-stubs.lock requirements-stubs.in
	@CUSTOM_COMPILE_COMMAND="make lock" build/lock/bin/pip-compile --quiet --upgrade --generate-hashes --strip-extras \
		--allow-unsafe --no-emit-index-url --no-emit-trusted-host --no-emit-find-links --no-annotate \
		--output-file requirements-fuzz.lock requirements-fuzz.in
	@CUSTOM_COMPILE_COMMAND="make lock" build/lock/bin/pip-compile --quiet --upgrade --generate-hashes --strip-extras \
		--allow-unsafe --no-emit-index-url --no-emit-trusted-host --no-emit-find-links --no-annotate \
		--output-file requirements-traps.lock requirements-traps.in
	@echo "requirements.lock: $$(grep -c '==' requirements.lock) packages pinned"

.PHONY: clean
clean: ## remove what was made; downloads are kept
	@for f in build/* build/.[!.]*; do case "$$f" in build/downloads) ;; *) rm -rf "$$f" ;; esac; done
	@rm -rf $(VENV) dist .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info shared/*.egg-info host/*.egg-info
	@find shared host firmware tests tools boards examples -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true

.PHONY: distclean
distclean: clean ## remove the downloads as well
	@rm -rf build
