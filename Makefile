# Nothing is needed but Python 3.11 and make; every target makes what it lacks.
.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
PYTHON3 ?= python3
comma := ,
empty :=
space := $(empty) $(empty)
UV := $(shell command -v uv 2>/dev/null || echo .uv/bin/uv)
UVDEP := $(filter .uv/bin/uv,$(UV))
export UV_PYTHON_DOWNLOADS ?= never
# A site that keeps a CPU build of torch says so through pip's find-links, which uv does not read: hand it over.
ifndef UV_FIND_LINKS
  _links := $(strip $(or $(PIP_FIND_LINKS),$(shell $(PYTHON3) -m pip config get global.find-links 2>/dev/null)))
  _links := $(foreach l,$(_links),$(if $(findstring ://,$(l)),$(l),$(wildcard $(l))))
  ifneq ($(strip $(_links)),)
    export UV_FIND_LINKS := $(subst $(space),$(comma),$(strip $(_links)))
  endif
endif

.uv/bin/uv:
	@$(PYTHON3) -m pip install -q --disable-pip-version-check --target .uv 'uv>=0.8' 2>/dev/null \
	  || { $(PYTHON3) -m venv .uv && .uv/bin/pip install -q 'uv>=0.8'; }

.PHONY: setup
setup: $(UVDEP) ## make the environment (.venv) with every package and tool
	@$(UV) lock --upgrade -q
	@if [ -n "$${UV_FIND_LINKS:-}" ] && ! grep -q '+cpu' uv.lock; then \
	  echo 'refusing: find-links is set, but a CUDA build of torch (3 GB) was resolved' >&2; exit 1; fi
	@$(UV) sync -q --all-packages --all-groups --all-extras
