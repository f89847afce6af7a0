# Only two commands have to be known: `make lab` and `make test`. Both need Python 3.11 or newer and make, nothing else:
# .ci/venv makes the virtual environment they run in.

PYTHON ?=
PORT   ?=
OPEN   ?= yes
DEPS   ?=
ARGS   ?=
N      ?= 200
export PYTHON DEPS

VENV := .venv
# Debian keeps `ip` and friends in a folder that ordinary users do not have on their PATH.
PY   = PATH="$(CURDIR)/$(VENV)/bin:$$PATH:/usr/sbin:/sbin" exec $(VENV)/bin/python

LAB  = --ServerApp.ip=127.0.0.1 --ServerApp.root_dir=. --LabApp.default_url=/lab/tree/notebooks
LAB += --ServerApp.log_level=WARN --LabApp.log_level=WARN
LAB += $(if $(PORT),--ServerApp.port=$(PORT) --ServerApp.port_retries=0,--ServerApp.port=8888 --ServerApp.port_retries=99)
LAB += $(if $(and $(filter yes,$(OPEN)),$(DISPLAY)$(WAYLAND_DISPLAY)),,--no-browser)
LAB += $(if $(filter 0,$(shell id -u)),--allow-root)

.DEFAULT_GOAL := help
.PHONY: help lab test book bench battery compare crash binder-test hub-test record where lint clean

help: ## what there is (this list)
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' Makefile

lab: ## open the course in JupyterLab; PORT=8899, OPEN=no (no browser), PYTHON=python3.13
	@.ci/venv $(VENV) lab
	@[ -e $(VENV)/share/jupyter/kernels/nslab-own-kernel ] || $(PY) -m nslab.cli vm install --quiet || true
	@if [ "$$(id -u)" = 0 ]; then echo "nslab: root, so JupyterLab gets --allow-root; it listens on 127.0.0.1 only."; fi
	@$(PY) -m jupyterlab $(LAB)

test: ## the whole suite; DEPS=install fetches the Debian packages some tests need, ARGS=--quick runs the core
	@.ci/venv $(VENV) test
	@$(PY) -m tests.suite $(if $(DEPS),--deps=$(DEPS)) $(ARGS)

book: ## the course, executed, as pages for a browser: build/book/index.html
	@.ci/venv $(VENV) book
	@$(PY) -m nslab.cli course book --to build/book

bench: ## side-by-side measurements, printed as ratios; ARGS=--json
	@.ci/venv $(VENV) test
	@$(PY) -m tests.bench $(ARGS)

battery: ## ways out of a container, hardened and plain side by side; ARGS=--json
	@.ci/venv $(VENV) test
	@$(PY) -m tests.battery $(ARGS)

compare: ## the same container by nslab, unshare, bwrap and runc: what each isolates; ARGS=--json
	@.ci/venv $(VENV) test
	@$(PY) -m tests.compare $(ARGS)

crash: ## kill things at random points and count what is left; N=200 rounds
	@.ci/venv $(VENV) test
	@$(PY) -m tests.crash $(N)

binder-test: ## builds the image of binder/ and runs the course in it, as on Binder: nothing is allowed, 2 GB, one processor
	@.ci/venv $(VENV) test
	@$(PY) -m tests.binder $(ARGS)

hub-test: ## the same image with a JupyterHub: two users at once, each on a Linux of their own; what each sees of the other
	@.ci/venv $(VENV) test
	@$(PY) -m tests.binder --hub

where: ## docs/where-it-runs.md anew: each unit as root, as an ordinary user and in a kernel of its own; ARGS="--as own"
	@.ci/venv $(VENV) test
	@$(PY) -m tests.where $(ARGS)

record: ## as root: what the cells of the course print, for readers who may run nothing; ARGS="02-pid 05"
	@.ci/venv $(VENV) test
	@$(PY) -m tests.notebooks.record_course $(ARGS)

lint: ## ruff and mypy
	@.ci/venv $(VENV) test
	@$(PY) -m ruff check
	@$(PY) -m ruff format --check
	@$(PY) -m mypy

clean: ## remove the virtual environments and caches
	rm -rf .venv .venv-* .mypy_cache .pytest_cache .ruff_cache build dist
	find nslab tests -name __pycache__ -prune -exec rm -rf {} +
