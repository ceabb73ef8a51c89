# Two commands: `make book` and `make test`. Each sets up .venv by itself.

PYTHON ?= python3
# Where torch comes from; empty means the package index, whose Linux build brings CUDA.
TORCH_INDEX ?=
# How many processes at a time.
JOBS ?= 2
# More options for one run, such as LAB_OPTIONS=--no-browser.
LAB_OPTIONS ?=
PYTEST_OPTIONS ?=
LOCK_OPTIONS ?=
# The base seeds of `make stability`, and the tier of its runs.
SEEDS ?= 0:20
TIER ?= quick

BIN := .venv/bin
READY := .venv/.ready
UV := _build/uv/bin/uv

# Kernels share the cores: two threads each on busy cores cost four times the time.
export OMP_NUM_THREADS := 1

.DEFAULT_GOAL := help
.PHONY: help book pdf test verdicts stability bench mutants lint lab lock clean clean-all

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' Makefile
	@echo
	@echo "  PYTHON=python3.12          the Python to use (3.11 to 3.13), for a new .venv"
	@echo "  TORCH_INDEX=ADDRESS        where to take torch from, for a new .venv"
	@echo "  SEEDS=0:20 TIER=quick      base seeds and tier, for make stability"
	@echo "  JOBS=2                     processes at a time"

$(READY): requirements.lock requirements-torch.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || { \
	  echo "This book needs Python 3.11, 3.12 or 3.13, and '$(PYTHON)' is not one of them." >&2; \
	  echo "Name one that is: make PYTHON=python3.12 ..." >&2; exit 1; }
	@rm -f $@
	@v='import sys; print(sys.version_info[:2])'; \
	if [ "$$($(BIN)/python -c "$$v" 2>/dev/null)" != "$$($(PYTHON) -c "$$v")" ]; then \
	  $(PYTHON) -m venv --clear .venv || { \
	    echo "'$(PYTHON) -m venv' failed. On Debian and Ubuntu: apt-get install python3-venv" >&2; \
	    exit 1; }; \
	fi
	@echo "Setting up .venv: a few minutes, once."
	$(BIN)/python -m pip install -q --require-hashes -r requirements.lock
	$(BIN)/python -m pip install -q $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) -r requirements-torch.txt
	$(BIN)/python -m pip install -q --no-deps --no-build-isolation -e .
	$(BIN)/python -m pip check
	@touch $@

# All that a page is made of. The digest changes with any name, content or removal,
# and with the variables that change every page.
PAGE_SOURCES = find _config.yml _toc.yml pyproject.toml requirements.lock requirements-torch.txt \
  book lnlib notebooks _build/results/$${LNLIB_BOOK_TIER:-book} -type f \
  ! -path '*/__pycache__/*' ! -path '*/.ipynb_checkpoints/*' | LC_ALL=C sort
PAGE_DIGEST = { echo "$$LNLIB_BOOK_TIER $$LNLIB_BOOK_REPOSITORY"; $(PAGE_SOURCES); $(PAGE_SOURCES) | git hash-object --no-filters --stdin-paths; } \
  | git hash-object --stdin
DIGEST_OF_HTML := _build/html.digest

book: $(READY) ## Run the stale studies and render the book
	$(BIN)/python -m lnlib run --jobs $(JOBS)
	@now=$$($(PAGE_DIGEST)) || exit 1; \
	if [ -f _build/html/index.html ] && [ "$$now" = "$$(cat $(DIGEST_OF_HTML) 2>/dev/null)" ]; then \
	  echo "No page has changed."; \
	else \
	  rm -rf $(DIGEST_OF_HTML) _build/html && \
	  $(BIN)/jupyter-book build . --all -W --keep-going -n && \
	  echo "$$now" > $(DIGEST_OF_HTML) || exit 1; \
	fi
	@echo "The book: file://$(CURDIR)/_build/html/index.html"

pdf: book ## Print the book as one PDF (needs Chromium or Chrome)
	$(BIN)/python book/print_book.py _build/html _build/book.pdf

test: lint ## Lint, type-check, and run every test, notebook and page
	$(BIN)/python tests/browser.py
	$(BIN)/python -m pytest -n $(JOBS) $(PYTEST_OPTIONS)

verdicts: $(READY) ## Run every study at quick tier and show its verdicts
	$(BIN)/python -m lnlib run --tier quick --jobs $(JOBS)
	$(BIN)/python -m lnlib verdicts --tier quick

stability: $(READY) ## Count the verdicts over SEEDS=0:20, for the pages (hours)
	-$(BIN)/python -m lnlib run --tier $(TIER) --seeds $(SEEDS) --jobs $(JOBS)
	$(BIN)/python -m lnlib verdicts --tier $(TIER) --seeds $(SEEDS) --json book/stability.json

bench: $(READY) ## Measure the speed of runner and trainer, as ratios
	$(BIN)/python tests/benchmarks

mutants: $(READY) ## Break lnlib in some two thousand places, and list what no test sees
	$(BIN)/python -m mutmut run --max-children $(JOBS)
	$(BIN)/python -m mutmut results

lint: $(READY) ## Lint, type-check, and find notebooks stored with outputs
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	@find notebooks -name '*.ipynb' ! -path '*/.ipynb_checkpoints/*' -print0 | \
	  xargs -0 $(BIN)/nbstripout --keep-id --verify || { \
	  echo "Strip them: $(BIN)/nbstripout --keep-id notebooks/*.ipynb" >&2; exit 1; }

lab: $(READY) ## Open JupyterLab on notebooks/
	$(BIN)/jupyter lab $(LAB_OPTIONS) notebooks

$(UV):
	$(PYTHON) -m venv _build/uv
	_build/uv/bin/python -m pip install -q uv

lock: $(UV) ## Write requirements.lock anew (LOCK_OPTIONS=--upgrade: newest versions)
	$(UV) pip compile -q pyproject.toml --extra dev --group torch-needs \
	  --universal --python-version 3.11 --fork-strategy fewest --generate-hashes \
	  --no-emit-index-url --no-emit-find-links --custom-compile-command "make lock" \
	  $(LOCK_OPTIONS) -o requirements.lock

clean: ## Remove results, pages and caches
	rm -rf _build mutants .pytest_cache .mypy_cache .ruff_cache .hypothesis lnlib.egg-info
	find . -name __pycache__ ! -path './.venv/*' -prune -exec rm -rf {} +

clean-all: clean ## Remove .venv too
	rm -rf .venv
