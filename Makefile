# Nothing is needed but Python 3.11 and make; every target makes what it lacks.
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
PYTHON3 ?= python3
WORKERS ?= 2
BIN := .venv/bin
comma := ,
empty :=
space := $(empty) $(empty)

UV := $(shell command -v uv 2>/dev/null || echo .uv/bin/uv)
UVDEP := $(filter .uv/bin/uv,$(UV))
export UV_PYTHON_DOWNLOADS ?= never
export UV_PROJECT_ENVIRONMENT := $(CURDIR)/.venv
# Where Python may not write bytecode, every command would compile what it imports: two seconds with torch.
export UV_COMPILE_BYTECODE ?= 1
unexport VIRTUAL_ENV PYTHONPATH PYTHONHOME
# A site that keeps a CPU build of torch says so through pip's find-links, which uv does not read: hand it over.
ifndef UV_FIND_LINKS
  _links := $(strip $(or $(PIP_FIND_LINKS),$(shell $(PYTHON3) -m pip config get global.find-links 2>/dev/null)))
  _links := $(foreach l,$(_links),$(if $(findstring ://,$(l)),$(l),$(wildcard $(l))))
  ifneq ($(strip $(_links)),)
    export UV_FIND_LINKS := $(subst $(space),$(comma),$(strip $(_links)))
  endif
endif

MANIFESTS := pyproject.toml .python-version $(wildcard packages/*/pyproject.toml)
TORCH_FREE := townlet-training-core townlet-sim townlet townlet-test-plugin
# Everything that can be had without torch; what works without these extras too is tested on the wheels.
TORCH_FREE_EXTRAS := --group test --group test-extras \
  $(addprefix --extra ,environments parquet plots remote tensorboard watch)
CORE_SYNC := $(addprefix --package ,$(TORCH_FREE)) $(TORCH_FREE_EXTRAS)

.PHONY: help
help: ## show this list
	@grep -hE '^[a-z][a-z-]*:.*##' $(firstword $(MAKEFILE_LIST)) \
	  | awk -F ':.*## ' '{ printf "  make %-12s %s\n", $$1, $$2 }'

# ---------------------------------------------------------------------------------------------- the main job
.PHONY: train
train: setup ## clone, anneal, evaluate and save a town policy (ARGS="--set seed=1" is handed on)
	@$(BIN)/townlet train anneal $(ARGS)

# -------------------------------------------------------------------------------------------------- set-up
.uv/bin/uv:
	@echo 'set-up: making a private uv in .uv' >&2
	@$(PYTHON3) -m pip install -q --disable-pip-version-check --target .uv 'uv>=0.8' 2>/dev/null \
	  || { rm -rf .uv && $(PYTHON3) -m venv .uv && .uv/bin/pip install -q 'uv>=0.8'; } \
	  || { echo 'cannot make uv: install uv, or pip for $(PYTHON3), and try again' >&2; exit 1; }

# Made at set-up and not committed, because a lock records the index of whoever made it (docs/adr/005).
uv.lock: $(MANIFESTS) | $(UVDEP)
	@$(UV) lock --upgrade -q
	@touch uv.lock

.venv/.set-up: uv.lock
	@if [ "$$(uname -s)" = Linux ] && [ -n "$${UV_FIND_LINKS:-}" ] \
	    && [ -z "$(UV_TORCH_BACKEND)$(ANY_TORCH)" ] && ! grep -qE '^version = "[^"]*\+cpu"' uv.lock; then \
	  echo 'refusing: find-links is set, but no CPU build of torch was resolved from it; the CUDA build is 3 GB.' >&2; \
	  echo 'Put a wheel of the version in pyproject.toml there, or say `make ANY_TORCH=1 setup` to take what there is.' >&2; \
	  rm -f uv.lock; exit 1; fi
	@echo 'set-up: syncing .venv' >&2
ifdef UV_TORCH_BACKEND
	@$(UV) venv -q --allow-existing .venv
	@$(UV) pip install -q --python .venv --torch-backend $(UV_TORCH_BACKEND) \
	  --group test --group test-extras --group lint --group docs \
	  -e 'packages/townlet-training-core[environments,onnx,parquet,plots,remote,tensorboard]' \
	  -e 'packages/townlet-sim[watch]' -e packages/townlet-training-torch -e 'packages/townlet[ml]' -e packages/townlet-test-plugin
else
	@$(UV) sync -q --all-packages --all-groups --all-extras
endif
	@touch $@

.PHONY: setup
setup: .venv/.set-up ## make the environment (.venv) with every package and tool; cheap when nothing changed

.venv-core/.set-up: uv.lock Makefile
	@echo 'set-up: syncing .venv-core (without torch)' >&2
	@UV_PROJECT_ENVIRONMENT=.venv-core $(UV) sync -q $(CORE_SYNC)
	@touch $@

# --------------------------------------------------------------------------------------------------- tests
.PHONY: test
test: setup .venv-core/.set-up ## all tests with torch (branch coverage, floors), then the torch-free matrix
	@$(BIN)/coverage erase
	@$(BIN)/python tests/warm_up.py
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n $(WORKERS) --cov --cov-report=
	@$(BIN)/python tests/coverage_floor.py
	@$(MAKE) --no-print-directory test-core

.PHONY: test-core
test-core: .venv-core/.set-up ## the tests of core, town and façade in an environment without torch
	@.venv-core/bin/python -c 'import importlib.util as u; assert u.find_spec("torch") is None, "torch is installed in .venv-core"'
	@echo 'without torch:' >&2
	@.venv-core/bin/python tests/warm_up.py
	@OMP_NUM_THREADS=1 .venv-core/bin/python -m pytest -q -n $(WORKERS) $(addprefix packages/,$(TORCH_FREE)) tests

.PHONY: test-cuda
test-cuda: setup ## the tests of training with learners on a CUDA device, where there is one
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q packages/townlet-training-torch/tests --device cuda

.PHONY: matrix
matrix: uv.lock ## core and town on Python 3.12 and 3.13, where those are installed
	@failed=; for version in 3.12 3.13; do \
	  python="$$($(UV) python find -q --no-project $$version 2>/dev/null \
	    || compgen -G "$${PYENV_ROOT:-$$HOME/.pyenv}/versions/$$version.*/bin/python" | tail -n 1 || true)"; \
	  if [ -z "$$python" ]; then echo "Python $$version is not here: skipped"; continue; fi; \
	  echo "Python $$version:"; \
	  UV_PROJECT_ENVIRONMENT=.venv-$$version $(UV) sync -q --python "$$python" \
	    --package townlet-training-core --package townlet-sim --package townlet-test-plugin $(TORCH_FREE_EXTRAS); \
	  .venv-$$version/bin/python tests/warm_up.py; \
	  OMP_NUM_THREADS=1 .venv-$$version/bin/python -m pytest -q -n $(WORKERS) \
	    packages/townlet-training-core packages/townlet-sim packages/townlet-test-plugin || failed="$$failed $$version"; \
	done; [ -z "$$failed" ] || { echo "failed on Python$$failed" >&2; exit 1; }

# The accessibility checker is not shipped (MPL 2.0) and not needed to use anything here. Its version is fixed; no lock file
# is written, because it would name a registry.
AXE := .axe/node_modules/axe-core/axe.min.js
$(AXE):
	@command -v npm >/dev/null && npm install --silent --no-audit --no-fund --no-save --no-package-lock --prefix .axe axe-core@4.14.1 \
	  || echo 'axe-core is not here (no npm, or no registry): the accessibility check is skipped' >&2
.PHONY: axe
axe: $(AXE)

.PHONY: report-check
report-check: setup axe ## open a report in a headless Chromium: console, network, accessibility, keyboard, phone
	@for name in chromium chromium-browser google-chrome; do command -v $$name && break; done >/dev/null \
	  || { echo 'no Chromium on PATH: install one (Debian: apt-get install chromium)' >&2; exit 1; }
	@$(BIN)/python -m pytest -q -m deep packages/townlet-training-core/tests/evaluation/test_report.py

.PHONY: deep
deep: setup axe ## what is too long for `test`: kills, fuzzing, learning over several seeds
	@$(BIN)/python tests/warm_up.py
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n $(WORKERS) -m deep --timeout 3600 --ignore tests/test_wheels.py

# -------------------------------------------------------------------------------------------------- checks
.PHONY: lint
lint: setup ## style, docstrings, formatting, import rules
	@failed=; \
	$(BIN)/ruff check -q --output-format concise || failed=1; \
	$(BIN)/ruff format -q --check || failed=1; \
	$(BIN)/lint-imports --no-cache || failed=1; \
	[ -z "$$failed" ]

# The tests of two packages may have modules of one name, so each folder is a run of its own (one cache).
.PHONY: typecheck
typecheck: setup ## mypy, strict, over packages, tests, benchmarks, examples and docs
	@failed=; \
	$(BIN)/mypy packages/*/src || failed=1; \
	for folder in packages/*/tests tests benchmarks examples docs requirements; do \
	  if compgen -G "$$folder/*.py" >/dev/null || compgen -G "$$folder/*/*.py" >/dev/null; then \
	    echo "$$folder"; $(BIN)/mypy "$$folder" || failed=1; fi; \
	done; [ -z "$$failed" ]

.PHONY: check
check: lint typecheck test docs wheels ## everything that must be green before a change is merged

# ---------------------------------------------------------------------------------------------- benchmarks
.PHONY: bench bench-import bench-town bench-data bench-train bench-gate bench-export bench-profile bench-learn
bench: bench-import bench-town bench-data bench-gate bench-train bench-export bench-profile ## all benchmarks; each writes benchmarks/results/<name>.json
bench-import: setup ## what importing the library costs
	@$(BIN)/python benchmarks/bench_import.py
bench-town: setup ## steps per second of the town, beside peers
	@$(BIN)/python benchmarks/bench_town.py
.PHONY: peers
peers: setup ## environments of the peers that benchmarks compare with, as far as they install
	@cat benchmarks/peers/environments.txt benchmarks/peers/trainers.txt | while read -r name wanted; do \
	  $(UV) venv -q --allow-existing --python 3.11 benchmarks/peers/.venv-$$name \
	    && $(UV) pip install -q --python benchmarks/peers/.venv-$$name $$wanted \
	    || { echo "peer $$name does not install: skipped"; rm -rf benchmarks/peers/.venv-$$name; }; \
	done
bench-data: setup ## rollout buffer, replay data and shards
	@$(BIN)/python benchmarks/bench_data.py
bench-gate: setup ## how often the promotion gate is wrong, and what its intervals cover
	@$(BIN)/python benchmarks/bench_gate.py
bench-profile: setup ## where the time of an iteration goes; what `townlet doctor --tune` finds
	@$(BIN)/python benchmarks/bench_profile.py
bench-export: setup ## exported policies beside torch and onnxruntime
	@$(BIN)/python benchmarks/bench_export.py
bench-train: setup ## BC and PPO beside peers (`make peers` first), about a quarter of an hour
	@$(BIN)/python benchmarks/bench_train.py
bench-learn: setup ## what is learned: CartPole, simple_spread, the town, the hand-over; about an hour, goes on where it stopped
	@for name in cartpole spread town handover; do $(BIN)/python benchmarks/learn_$$name.py; done

# ------------------------------------------------------------------------------------------ docs and wheels
.PHONY: docs
docs: setup ## the documentation (docs/_build/html); warnings are errors
	@rm -rf docs/_build
	@$(BIN)/sphinx-build -q -W --keep-going -b html docs docs/_build/html
	@echo 'docs: docs/_build/html/index.html'

.PHONY: wheels
wheels: setup ## build the wheels (dist/) and try them in fresh environments outside the checkout
	@rm -rf dist
	@$(UV) build -q --all-packages --no-sources
	@rm -f dist/townlet_test_plugin*
	@TOWNLET_DIST=dist UV=$(abspath $(UV)) $(BIN)/python -m pytest -q -m deep --timeout 900 tests/test_wheels.py

.PHONY: requirements
requirements: uv.lock ## export the pinned, hashed requirements/*.txt for audited installs
	@$(PYTHON3) requirements/export.py $(UV)

.PHONY: clean
clean: ## remove environments, caches and products (not runs/)
	@rm -rf .venv .venv-* dist build docs/_build docs/_generated .mypy_cache .ruff_cache .pytest_cache \
	  .import_linter_cache .hypothesis .coverage .coverage.* htmlcov uv.lock
	@find packages tests benchmarks examples docs -name __pycache__ -prune -exec rm -rf {} +
