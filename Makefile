# Every target installs what it needs into .venv; the machine needs Python 3.11 or newer and make.
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do \
	$$p -c 'import sys, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
STEPS ?=
# What test-py and test-lowest run: the mathematics, the data pipeline, packaging.
CORE_TESTS := tests/model tests/gin tests/interop tests/data/store tests/data/batching tests/test_config.py tests/test_files.py tests/test_imports.py tests/test_jaxlib_guard.py tests/test_progress.py tests/training/test_optimizer.py tests/training/test_checkpoint.py tests/generation/test_decode_step.py tests/evaluation/test_bootstrap.py tests/cli/test_doctor.py
RUN := runs/quickstart$(if $(STEPS),_$(STEPS)_steps)
# The short report scores a part of the documents, and says so.
PART := $(if $(STEPS),--max-documents 6 --max-tokens 100000 --gin-param EvaluationConfig.official_segments=20)

.PHONY: help quickstart quickstart-report test test-py test-lowest coverage mutation test-slow test-faults test-browser docs-test test-tpu-compile compile-report test-beam bench bench-compare bench-peers bench-start bench-compile bench-data bench-train bench-evaluate bench-generate laptop cost-by-length lint lock clean docs bench-memory bench-table check-card notebook
.DEFAULT_GOAL := help

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-18s %s\n", $$1, $$2}'

define make_venv
@test -n "$(PYTHON)" || { echo "make: no Python 3.11 or newer found; name one with PYTHON=..." >&2; exit 2; }
@test -x $(BIN)/python || $(PYTHON) -m venv .venv
endef

# The lock file pins the tested versions of all packages; as a constraint it serves every set of extras.
.venv/core: setup.py requirements.lock
	$(make_venv)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c requirements.lock -e .
	touch $@

.venv/all: setup.py requirements.lock
	$(make_venv)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c requirements.lock -e '.[data,dev,docs,gcs]'
	touch .venv/core $@

# One environment for each version of Python: .venv-py312 is of python3.12.
.venv-py%/core: setup.py requirements.lock
	test -x $(@D)/bin/python || $(call find_python,$(patsubst 3%,3.%,$*)) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check -c requirements.lock -e . beartype hypothesis pytest pytest-xdist setuptools
	touch $@

# The lowest versions that setup.py allows of direct requirements, and of the others the newest that fit them.
.venv-lowest/core: setup.py
	$(if $(PYTHON),,$(error no Python 3.11 or newer found; name one with PYTHON=...))
	test -x .venv-lowest/bin/python || $(PYTHON) -m venv .venv-lowest
	.venv-lowest/bin/python -m pip install --quiet --disable-pip-version-check uv
	.venv-lowest/bin/uv pip compile --quiet --resolution lowest-direct --python .venv-lowest/bin/python setup.py -o .venv-lowest/requirements.txt
	.venv-lowest/bin/python -m pip install --quiet --disable-pip-version-check -r .venv-lowest/requirements.txt -e . beartype hypothesis pytest pytest-xdist setuptools
	touch $@

# Beam requires protobuf 6 and SentencePiece's generated code 7: Beam has an environment of its own, without the lock.
.venv-beam/all: setup.py
	test -x .venv-beam/bin/python || $(PYTHON) -m venv .venv-beam
	.venv-beam/bin/python -m pip install --quiet --disable-pip-version-check -e '.[beam]' pytest hypothesis
	touch $@

# With libtpu installed, jax looks for chips at every start: libtpu has an environment of its own.
.venv-tpu/all: setup.py requirements.lock
	test -x .venv-tpu/bin/python || $(PYTHON) -m venv .venv-tpu
	.venv-tpu/bin/python -m pip install --quiet --disable-pip-version-check -c requirements.lock -e '.[tpu]' beartype hypothesis pytest
	touch $@

# The peers of bench-peers have environments of their own.
.venv-port/installed:
	test -x .venv-port/bin/python || $(PYTHON) -m venv .venv-port
	.venv-port/bin/python -m pip install --quiet --disable-pip-version-check torch==2.13.0
	.venv-port/bin/python -m pip install --quiet --disable-pip-version-check block-recurrent-transformer-pytorch==0.4.4
	touch $@

.peers/c275696/.venv/core:
	mkdir -p .peers/c275696
	git archive c275696 | tar -x -C .peers/c275696
	$(MAKE) -C .peers/c275696 .venv/core

quickstart: .venv/core  ## prepare real text, train a small model, evaluate and sample it; 6 minutes, with STEPS=200 one
	$(BIN)/python -m block_recurrent prepare --gin-file gin/runs/quickstart.gin
	$(BIN)/python -m block_recurrent train --gin-file gin/runs/quickstart.gin --workdir $(RUN) \
		$(if $(STEPS),--gin-param TrainConfig.num_steps=$(STEPS))
	$(BIN)/python -m block_recurrent evaluate --workdir $(RUN) --split test \
		--gin-param DataConfig.segment_length=1024
	$(BIN)/python -m block_recurrent generate --workdir $(RUN) --box --prompt "def parse_arguments(arguments):" \
		--num-tokens 400 --temperature 0.8 --top-p 0.95
	@echo "Next: what the state is worth, a longer prompt, and a page with everything$(if $(STEPS),, (15 to 20 minutes)):"
	@echo "  $(BIN)/python -m block_recurrent evaluate --workdir $(RUN) --ablations"
	@echo "  $(BIN)/python -m block_recurrent generate --workdir $(RUN) --prompt-file setup.py"
	@echo "  $(if $(STEPS),STEPS=$(STEPS) )make quickstart-report"

quickstart-report: .venv/core  ## after quickstart: a twin without recurrence, one with random cells, all studies, one page; 15 to 20 minutes, with STEPS=200 a short version
	$(BIN)/python -m block_recurrent train --gin-file gin/runs/quickstart.gin --workdir $(RUN)_slide \
		--gin-param "ModelConfig.recurrent_layers=()" --gin-param ModelConfig.num_states=0 \
		$(if $(STEPS),--gin-param TrainConfig.num_steps=$(STEPS))
	test -e $(RUN)_random || $(BIN)/python -m experiments.studies.random_cell $(RUN) $(RUN)_random
	$(BIN)/python -m block_recurrent evaluate --workdir $(RUN) --tokens --official --ablations --diagnostics $(PART)
	$(BIN)/python -m block_recurrent evaluate --workdir $(RUN) --all-checkpoints
	$(BIN)/python -m block_recurrent evaluate --checkpoint $(RUN)_random --gin-file gin/runs/quickstart.gin --ablations --diagnostics $(PART)
	$(BIN)/python -m block_recurrent evaluate --workdir $(RUN)_slide --tokens $(PART)
	$(BIN)/python -m block_recurrent compare $(RUN)_slide $(RUN) --out $(RUN)_against_slide $(PART)
	$(BIN)/python -m block_recurrent generate --workdir $(RUN) --prompt "def parse_arguments(arguments):" \
		--num-tokens 400 --temperature 0.8 --top-p 0.95 --jsonl $(RUN)/samples.jsonl
	$(BIN)/python -m block_recurrent report $(RUN) $(RUN)_slide $(RUN)_random $(RUN)_against_slide --out runs/report.html

test: .venv/all lint docs  ## lint, types, the documentation site and the fast tests; about 10 minutes with installation
	$(BIN)/python -m pytest -n 2 --dist loadfile

# Python $(1), from PATH or from pyenv.
find_python = $$(for p in python$(1) $${PYENV_ROOT:-$$HOME/.pyenv}/versions/$(1).*/bin/python$(1); do \
	$$p -c 'import ensurepip' 2>/dev/null && echo $$p && break; done)

test-py:  ## the core of the fast tests on Python 3.11, 3.12 and 3.13, where they are installed
	@for version in 311 312 313; do \
		if test -n "$(call find_python,3.$${version#3})"; then \
			echo "Python 3.$${version#3}" && $(MAKE) .venv-py$$version/core \
			&& .venv-py$$version/bin/python -m pytest -q -n 2 --dist loadfile $(CORE_TESTS) || exit 1; \
		else echo "Python 3.$${version#3} is not installed: skipped"; fi; done

test-lowest: .venv-lowest/core  ## the core of the fast tests with the lowest versions that setup.py allows
	.venv-lowest/bin/python -m pytest -q -n 2 --dist loadfile $(CORE_TESTS)

coverage: .venv/all  ## line and branch coverage of the package by the fast and the slow tests, below build/coverage; 40 minutes
	$(BIN)/python -m pytest -n 2 --dist loadfile --cov=block_recurrent --cov-branch --cov-report=
	$(BIN)/python -m pytest -m slow -n 2 --dist loadfile --cov=block_recurrent --cov-branch --cov-append --cov-report=term --cov-report=html:build/coverage

mutation: .venv/all  ## twenty faults of the mathematics, one after another: the tests must find each
	$(BIN)/python -m tests.mutation.run

test-slow: .venv/all  ## tests longer than a minute, all sharding cases among them
	$(BIN)/python -m pytest -m slow -n 2 --dist loadfile

test-faults: .venv/all  ## kill, damage, fill and resume training runs; prints a table of faults and outcomes
	$(BIN)/python -m pytest -s -m faults

test-browser: .venv/all  ## the report and the documentation site in headless Chromium (installed from Debian if missing); screenshots in build/screenshots
	@command -v chromium >/dev/null || { apt-get update && apt-get install -y --no-install-recommends chromium; }
	$(BIN)/python -m pytest -m browser

docs-test: .venv/all  ## paste every command of the documentation on a bare machine: fresh copy, HOME and environment
	$(BIN)/python -m pytest -s -m docs tests/docs

test-tpu-compile: .venv-tpu/all  ## compile small and paper-size steps and the fused kernel for TPUs, without a TPU; 13 to 17 minutes
	.venv-tpu/bin/python -m pytest -s -m tpu_compile tests/aot/test_compile.py

compile-report: .venv-tpu/all  ## compile every row of Tables 1 and 2 for four slices, and gin/scaling for v4; hours, continues where it stopped
	.venv-tpu/bin/python -m block_recurrent compile --all --check \
		--topology v4:2x2x4 --topology v5e:4x8 --topology v5p:2x2x2 --topology v6e:4x4

bench-compile: .venv-tpu/all  ## compile every row of Table 1 for a v4-32 three times, against bounds; 60 to 100 minutes, continues where it stopped
	.venv-tpu/bin/python -m experiments.benchmarks.compile

test-beam: .venv-beam/all  ## the Beam pipeline, with the DirectRunner
	.venv-beam/bin/python -m pytest --confcutdir=tests/data tests/data/preparation/test_shards.py

bench: .venv/core  ## speed of every step on this machine, three sizes and every row of Table 1 in small; 20 to 35 minutes
	$(BIN)/python -m experiments.benchmarks.speed

bench-compare: .venv/core  ## after bench: what got slower since the committed results
	$(BIN)/python -m experiments.benchmarks.compare

bench-peers: .venv/core .venv-port/installed .peers/c275696/.venv/core  ## speed against the PyTorch port and version 0.1.0; 35 to 45 minutes
	$(BIN)/python -m experiments.benchmarks.peers

check-card: .venv/cuda  ## a GPU: parity with the official code, then speed; more than 9 minutes
	$(BIN)/python -m experiments.benchmarks.card

bench-table: .venv/cuda  ## a GPU: step time of the rows of Table 1 at full size, next to the paper's; about 40 minutes, continues where it stopped
	$(BIN)/python -m experiments.benchmarks.table

bench-start: .venv/core  ## how long a user waits for --help and for the first step, against bounds; 3 minutes, after quickstart
	$(BIN)/python -m experiments.benchmarks.start

bench-memory: .venv/core  ## step time and memory of external memories against Rec:fixed:skip; 10 minutes
	$(BIN)/python -m experiments.benchmarks.memory

bench-data: .venv/all  ## the data pipeline at the scale of PG19, against bounds; 3 to 10 minutes, 10 GB of disk
	$(BIN)/python -m experiments.benchmarks.data

bench-train: .venv/all  ## training, against bounds: dispatch, loop, data wait, compilation; 4 minutes
	$(BIN)/python -m block_recurrent prepare --gin-file gin/runs/quickstart.gin
	$(BIN)/python -m experiments.benchmarks.train

bench-evaluate: .venv/all  ## evaluation at least 2.5 times as fast as training; 4 minutes
	$(BIN)/python -m block_recurrent prepare --gin-file gin/runs/quickstart.gin
	$(BIN)/python -m experiments.benchmarks.evaluate

bench-generate: .venv/all  ## generation, against bounds: speed, memory, prefill, batches; 3 minutes
	$(BIN)/python -m experiments.benchmarks.generate

laptop: .venv/core  ## the paper's comparison at laptop size: runs what experiments/laptop misses; a day in all, with a GPU minutes
	test -e experiments/laptop/step_times.json || $(BIN)/python -m experiments.laptop.step_times
	$(BIN)/python -m experiments.tables.run_table --table laptop
	$(BIN)/python -m experiments.laptop.report

notebook: .venv/all  ## execute experiments/tour.ipynb with a short training; a minute
	$(BIN)/python -m pytest -m slow tests/experiments/test_tour.py

cost-by-length: .venv/core  ## time of a document of 1k to 64k tokens, five architectures; 30 minutes, continues where it stopped
	$(BIN)/python -m experiments.studies.cost_by_length

docs: .venv/all  ## the documentation as a site, in site/; a warning is an error
	$(BIN)/sphinx-build -q -W --keep-going -c docs -b html . site

lint: .venv/all  ## ruff and pyright on package, tests and experiments
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

lock: .venv/all  ## resolve requirements.lock again from setup.py
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile --quiet --upgrade --universal --fork-strategy fewest --python-version 3.11 --extra data --extra dev --extra docs --extra gcs --extra hub --extra tpu --extra cuda --extra wandb --no-header setup.py -o requirements.lock

clean:  ## remove environments and caches; prepared data and runs stay
	rm -rf .venv .venv-beam .venv-tpu .venv-port .venv-lowest .venv-py3* .peers .pytest_cache .ruff_cache build site *.egg-info
