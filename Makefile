PROFILE ?= paper
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/ready
PLATFORMS := x86_64-manylinux_2_28 aarch64-manylinux_2_28 aarch64-apple-darwin x86_64-pc-windows-msvc
NOTEBOOKS := $(filter-out book/machinery/% book/experiments/%,$(wildcard book/*/*.py))
# For nbval: those that no sweep executes, and the trainings, which it does with other parameters
UNSWEPT := $(filter-out book/mnist/% book/celeba/%, $(NOTEBOOKS)) $(wildcard book/*/train.py)
# Or each process would compile all that it imports anew
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help quick book pdf style unit test reproduce lock platforms lab clean

help: ## list the commands
	@grep -E '^[a-z]+:.*##' Makefile | sed -E 's/:.*##/\t/'

# uv installs in a fraction of pip's time
$(READY): requirements.txt pyproject.toml book/machinery/pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "There is no $(PYTHON) here. Install Python 3.11 to 3.14, or name one: make $(MAKECMDGOALS) PYTHON=..."; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))' || { echo "$(PYTHON) is $$($(PYTHON) --version); this needs 3.11 to 3.14. Name one: make $(MAKECMDGOALS) PYTHON=..."; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { echo "$(PYTHON) cannot make virtual environments. On Debian or Ubuntu: apt install python3-venv"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet uv==0.13.9
	$(BIN)/uv pip install --quiet --python .venv --require-hashes --requirement requirements.txt
	$(BIN)/uv pip install --quiet --python .venv --no-deps --no-build-isolation --editable . --editable book/machinery
	touch $@

quick: $(READY) ## train on the embedded data, and make its pages in book/runs/quick
	$(BIN)/python -m book.machinery sweep celeba mnist --profile quick

book: quick ## train on the embedded data, and build the book into _build/html
	$(BIN)/jupyter-book build . -W -n --keep-going --all

pdf: ## print the built book's road, from the idea to the verdict, as _build/book.pdf
	$(BIN)/python -m book.machinery.pdf

style: $(READY) ## check style, types, lines of code, plain English, and that each notebook agrees with its text
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/python -m book.machinery.loc
	$(BIN)/python -m book.machinery.readability --docstrings --max-flags 11 vaelib book/machinery book/experiments
	$(BIN)/python -m book.machinery.readability --max-flags 6 $(NOTEBOOKS) $(wildcard *.md book/*.md book/*/*.md)
	$(BIN)/jupytext --sync --pre-commit-mode $(NOTEBOOKS)

unit: $(READY) ## run the fast tests, of the package alone
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 tests/unit

test: style book ## check the style, build the book, run the tests, and the notebooks that no sweep has executed
	OMP_NUM_THREADS=1 VAELIB_PROFILE=quick $(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder --nbval-lax $(UNSWEPT:.py=.ipynb) tests

reproduce: $(READY) ## train a whole profile, and refresh what the book publishes: make reproduce PROFILE=paper
	$(BIN)/jupytext --quiet --sync $(NOTEBOOKS)
	$(BIN)/python -m book.machinery sweep celeba mnist --profile $(PROFILE) --no-summary
	$(BIN)/python -m vaelib train faces --latent-dim 32 --epochs 60
	$(if $(filter paper,$(PROFILE)),$(BIN)/python -m book.experiments.verdicts)
	VAELIB_PROFILE=$(PROFILE) TQDM_DISABLE=1 $(BIN)/jupytext --sync --execute $(NOTEBOOKS)
	$(BIN)/python -m book.machinery publish mnist --profile $(PROFILE)
	$(BIN)/python -m book.machinery publish celeba --profile $(PROFILE)
	$(BIN)/python -m book.machinery publish beyond --profile $(PROFILE)

lock: $(READY) ## pin in requirements.txt what pyproject.toml asks for; newer: make lock UPGRADE=--upgrade
	$(BIN)/uv pip compile --quiet pyproject.toml book/machinery/pyproject.toml --group test --universal --python-version 3.11 --generate-hashes \
		--custom-compile-command "make lock" --output-file requirements.txt $(UPGRADE)

platforms: $(READY) ## ask whether every pin has a wheel for each Python and platform that the README names
	for python in 3.11.2 3.12 3.13 3.14; do for platform in $(PLATFORMS); do echo "$$python $$platform"; \
		$(BIN)/uv pip compile --quiet --only-binary :all: --python-version $$python --python-platform $$platform \
		requirements.txt --output-file /dev/null || exit 1; done; done

# A copy, for JupyterLab saves by itself what it has executed, and with it the published outputs would be gone
lab: $(READY) ## open a copy of the notebooks, in the folder lab, in JupyterLab
	@if [ -d lab ]; then echo "lab holds your copy of the notebooks; delete it for a fresh one"; else mkdir lab && cp -R book lab/; fi
	$(BIN)/jupyter lab --notebook-dir lab $(if $(filter 0,$(shell id -u)),--allow-root)

clean: ## remove what was built; runs, and the environment, stay
	rm -rf _build book/runs/quick .pytest_cache .ruff_cache
