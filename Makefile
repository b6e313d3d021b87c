PROFILE ?= paper
BIN := .venv/bin
READY := .venv/ready
NOTEBOOKS := $(wildcard book/*/*.py)
# Kernels without ports, see vaelib/kernels.py
export JUPYTER_DEFAULT_PROVISIONER_NAME := vaelib

.PHONY: help book test reproduce lab clean quick

help: ## list the commands
	@grep -E '^[a-z]+:.*##' Makefile | sed -E 's/:.*##/\t/'

$(READY): requirements.txt pyproject.toml
	python3 -m venv .venv
	$(BIN)/python -m pip install --quiet --requirement requirements.txt
	touch $@

quick: $(READY)
	$(BIN)/python -m vaelib sweep celeba mnist --profile quick

book: quick ## train on the embedded data, and build the book into _build/html
	$(BIN)/jupyter-book build . -W -n --keep-going --all
	find _build/html/_static -name '*.map' -delete # the theme's, 3 MB that only its makers need

test: book ## do the same, then check the style, run the tests, and every notebook on the embedded data
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/jupytext --sync --pre-commit-mode $(NOTEBOOKS)
	$(BIN)/pytest
	OMP_NUM_THREADS=1 VAELIB_PROFILE=quick $(BIN)/pytest -n 2 --dist loadfile --nbval-lax $(NOTEBOOKS:.py=.ipynb)

reproduce: $(READY) ## train a whole profile, and refresh what the book publishes: make reproduce PROFILE=paper
	$(BIN)/jupytext --quiet --sync $(NOTEBOOKS)
	$(BIN)/python -m vaelib sweep celeba mnist --profile $(PROFILE) --no-summary
	$(BIN)/python -m vaelib train faces --profile $(PROFILE)
	VAELIB_PROFILE=$(PROFILE) TQDM_DISABLE=1 $(BIN)/jupytext --sync --execute $(NOTEBOOKS)
	$(BIN)/python -m vaelib publish mnist --profile $(PROFILE)
	$(BIN)/python -m vaelib publish celeba --profile $(PROFILE)

lab: $(READY) ## open the notebooks in JupyterLab
	$(BIN)/jupyter lab book

clean: ## remove what was built; runs, and the environment, stay
	rm -rf _build book/runs/quick .pytest_cache .ruff_cache
