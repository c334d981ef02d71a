# The two commands of the README set themselves up: a virtual environment in .venv, made with
# $(PYTHON) (python3 if you do not say otherwise), with the project and what it needs installed.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
OUT ?= tutorial-results
export JAX_PLATFORMS ?= cpu

.PHONY: tutorial test test-part test-newest test-slow test-nightly check format examples bench clean help

help:
	@echo "make tutorial   run the Gaussian mixture job; figures and report in $(OUT)/"
	@echo "make test       run the tests"
	@echo "make test-part  run a part of them, some of every area"
	@echo "make test-newest  the same part on Python 3.13 with the newest JAX"
	@echo "make test-slow  run the tests that take longer, too"
	@echo "make test-nightly   simulation-based calibration of the samplers"
	@echo "make check      lint, format, types"
	@echo "make format     let ruff mend what it can"
	@echo "make examples   run the scripts in examples/"
	@echo "make bench      measure speed (see benchmarks/README.md)"

define install
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '$(1)'
endef

$(VENV)/.run: pyproject.toml src/marginax/__init__.py
	$(call install,.)
	touch $@

$(VENV)/.dev: pyproject.toml src/marginax/__init__.py
	$(call install,.[dev])
	touch $(VENV)/.run $@

tutorial: $(VENV)/.run
	$(BIN)/marginax tutorial --out $(OUT)

# Most programs of the tests run once, so that optimising them costs more time than it saves;
# test-slow runs everything as users do.
QUICK := --xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true
# XLA takes half as long without its emitters of fusions; where it no longer has this flag it ends the process.
PLAIN := --xla_cpu_use_fusion_emitters=false
FLAGS = $(QUICK) $(shell XLA_FLAGS=$(PLAIN) $(BIN)/python -c "import jax; jax.devices()" 2>/dev/null && echo $(PLAIN))

# What one run compiles is kept in the checkout for the next, which takes a fifth less time.
KEPT := JAX_COMPILATION_CACHE_DIR="$(CURDIR)/.cache/programs" JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS=0 \
	JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES=-1

test: $(VENV)/.dev
	$(KEPT) XLA_FLAGS="$(FLAGS) $(XLA_FLAGS)" $(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow"

# Some tests of every area, most of all of what new versions of JAX break: which primitives there are, derivatives
# of derivatives, what XLA does not finish, programs on disk.
PART := tests/jaxpr/test_compiled.py tests/jaxpr/test_objects.py tests/jaxpr/test_same_program.py \
	tests/jaxpr/test_program_cache.py tests/test_from_numpyro.py tests/language/test_scan.py \
	tests/elimination/test_semiring.py tests/jaxpr/test_axis_flow.py tests/jaxpr/test_dependence.py \
	tests/blocks/test_in_blocks.py tests/infer/test_mcmc.py tests/infer/posterior/test_discrete.py \
	tests/infer/posterior/test_predictive.py tests/infer/test_autoguide_laplace.py tests/infer/test_line_search.py \
	tests/mixture/test_members.py tests/mixture/test_options.py tests/cli/test_tables.py tests/report/test_report.py \
	tests/serve/test_serving.py

test-part: $(VENV)/.dev
	$(KEPT) XLA_FLAGS="$(FLAGS) $(XLA_FLAGS)" $(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow" $(PART)

NEWEST_PYTHON ?= python3.13

test-newest:
	$(MAKE) test-part PYTHON=$(NEWEST_PYTHON) VENV=.venv-3.13

test-slow: $(VENV)/.dev
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "not nightly"

test-nightly: $(VENV)/.dev
	$(BIN)/python -m pytest -m nightly

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

examples: $(VENV)/.run
	$(BIN)/python examples/tutorial.py
	$(BIN)/python examples/iris.py
	for script in examples/latent_discrete/*.py; do $(BIN)/python $$script || exit 1; done
	for script in examples/hidden_markov/*.py; do $(BIN)/python $$script || exit 1; done

bench: $(VENV)/.dev
	$(BIN)/python benchmarks/run.py
	$(BIN)/python benchmarks/log_density.py
	$(BIN)/python benchmarks/compile_time.py
	$(BIN)/python benchmarks/hmm.py
	$(BIN)/python benchmarks/gaussian_mixture.py
	$(BIN)/python benchmarks/estimators.py
	$(BIN)/python benchmarks/serve.py
	$(BIN)/python benchmarks/import_time.py

clean:
	rm -rf $(VENV) $(OUT) build dist
