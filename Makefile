# `make demo` and `make test` need only Python 3.11 or newer, git and make.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Where CPU builds of torch are published; the ordinary index serves gigabytes of CUDA with it on Linux.
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
TORCH := $(shell sed -n 's/^torch==\([0-9.]*\).*/\1/p' constraints.txt)
DEMO ?= demo-study
# Processes that run the tests: one for each core that may be used, at most 4, because each needs about 1 GB.
TEST_WORKERS ?= $(shell $(PYTHON) -c 'import os; usable = getattr(os, "sched_getaffinity", lambda _: range(os.cpu_count() or 1)); cores = len(usable(0)); print(min(cores, 4) if cores > 1 else 0)')

.PHONY: demo test check docs bench torture install clean

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	@echo 'Installing into $(VENV): about 2 GB, a few minutes.'
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is " + sys.version.split()[0] if sys.version_info < (3, 11) else 0)'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade pip setuptools wheel -c constraints.txt
	$(BIN)/python -c 'import torch' 2>/dev/null \
		|| $(BIN)/python -m pip install --quiet --disable-pip-version-check 'torch==$(TORCH)+cpu' 2>/dev/null \
		|| $(BIN)/python -m pip install --quiet --disable-pip-version-check 'torch==$(TORCH)' --index-url $(TORCH_INDEX)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,docs,hf,export,formats]'
	touch $@

demo: install
	rm -rf $(DEMO)
	$(BIN)/actionprep demo $(DEMO)
	cd $(DEMO) && $(abspath $(BIN))/actionprep track --grid 20 --views 0 1 3 6
	cd $(DEMO) && $(abspath $(BIN))/actionprep snippets --length 1000 --iou 0.5
	cd $(DEMO) && $(abspath $(BIN))/actiontrain fit
	cd $(DEMO) && $(abspath $(BIN))/actiontrain test

test: install
	$(BIN)/codespell $$(git ls-files '*.py' '*.md' '*.toml' '*.yml')
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -n $(TEST_WORKERS) --dist loadfile

docs: install
	$(BIN)/python docs/tables.py --check
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

bench: install
	for name in $$(ls benchmarks | sed -n 's/^\([a-z0-9_]*\)\.py$$/\1/p'); do \
		case $$name in common) ;; *) $(BIN)/python -m benchmarks.$$name || exit 1 ;; esac; done
	$(BIN)/python docs/tables.py

# Up to 60 minutes for each part. disk_full mounts a tmpfs, which needs root.
torture: install
	$(BIN)/python -m torture
	$(BIN)/python docs/tables.py

clean:
	rm -rf $(VENV) $(DEMO) site build *.egg-info
