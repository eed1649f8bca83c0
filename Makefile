# The commands of a developer. Each target sets up what it needs in .venv, and does nothing again
# that is up to date. To use another interpreter: make PYTHON=python3.13 test

VENV ?= .venv
PYTHON ?= $(firstword $(foreach name,python3.11 python3 python3.12 python3.13 python3.14 python3.10,\
            $(if $(shell $(name) -c 'import sys; print(sys.version_info >= (3, 10) or "")' 2>/dev/null),$(name))))
RUN := $(VENV)/bin/python
PIP := $(RUN) -m pip --disable-pip-version-check

SEED ?= 20240229# the seed of the streams that `statistics` tests

# .venv records what has been done, for this folder only, so a copy of the folder starts from the beginning.
DONE := $(VENV)/done/$(shell pwd | cksum | tr -d ' ')
USABLE := $(shell $(RUN) -c 'import pip; print("yes")' 2>/dev/null)
REQUIRES := $(shell sed -n 's/^requires = \[\(.*\)\]/\1/p' pyproject.toml | tr , ' ')
SOURCES := setup.py $(shell find fastdrop -name '*.py' -o -name '*.pyx' -o -name '*.px[di]' -o -name '*.h')

TESTS := $(DONE)/build $(DONE)/test $(DONE)/demo# what the tests need

# The tests of the calls. The others start interpreters or compilers, or write files.
PARALLEL := $(patsubst %,tests/test_%.py,stream mask checks reference layers gaussian gradient monte_carlo kernels variants arrays)

.DEFAULT_GOAL := help
.PHONY: help demo test versions statistics large parallel fuzz guided mutations sanitize neon cross coverage bench lint types docs build dist wheel clean requires ready remake
.DELETE_ON_ERROR:

help:  ## print this list
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

demo: $(DONE)/build $(DONE)/demo  ## train a network with dropout on handwritten digits, in several ways
	$(RUN) -m fastdrop demo $(ARGS)

test: $(TESTS)  ## run the tests, which compare the kernels with the NumPy reference (ARGS="-k mask -x")
	$(RUN) -m pytest $(ARGS)

requires: $(DONE)/requires# what the build needs, and nothing built

ready: $(TESTS)# all that the tests need, and no test run

versions: $(TESTS)  ## test the adapters with the oldest and the newest frameworks (10 minutes, 10 GB)
	$(RUN) tests/versions.py $(ARGS)

large: $(TESTS)  ## test arrays of more than 2**32 elements (1 minute, 9 GiB of memory)
	$(RUN) -m pytest -m large $(ARGS)

parallel: $(TESTS)  ## run each test on 8 threads at once, twice (30 minutes)
	$(PIP) install pytest-run-parallel
	$(RUN) -m pytest --parallel-threads=8 --iterations=2 $(or $(ARGS),$(PARALLEL))

bench: $(DONE)/build $(DONE)/bench  ## measure the speed of this machine, compared with a copy and other libraries
	$(RUN) -m fastdrop bench $(ARGS)
	$(if $(wildcard benchmarks/*.py),$(RUN) -m pytest benchmarks)

statistics: $(TESTS)  ## run the statistical tests on 16 times as many elements, then dieharder (30 minutes)
	$(RUN) -m pytest tests/statistics --elements 67108864 --statistics-seed $(SEED)
	@command -v dieharder >/dev/null || { [ "$$(id -u)" = 0 ] && apt-get install -qq -y dieharder; } || \
	    { echo "dieharder was not found: apt-get install dieharder" >&2; exit 1; }
	$(RUN) tests/statistics/dieharder.py --seed $(SEED) --report docs/reports/dieharder.txt

fuzz: $(TESTS)  ## test random whole calls and the raw entry points (ARGS="--seconds 60"; 10 minutes)
	$(RUN) tests/fuzz.py $(or $(ARGS),--seconds 600)

guided: $(TESTS)  ## test the kernels with clang's libFuzzer, guided by coverage (10 minutes)
	$(RUN) tests/guided.py $(or $(ARGS),--seconds 600)

mutations: $(TESTS)  ## check that the tests find faults made by rule (ARGS="--sample 500"; 1 hour)
	$(RUN) tests/mutate.py $(or $(ARGS),--sample 100)

coverage: $(TESTS)  ## show which lines of Python and Cython the tests run (15 minutes)
	$(PIP) install 'coverage>=7.10'
	$(RUN) tests/lines.py $(ARGS)

sanitize: $(TESTS)  ## test the kernels with sanitizers, valgrind, clang and emulation (ARGS=thread runs one)
	$(RUN) tests/sanitize.py $(ARGS)

neon: $(TESTS)  ## test the kernels on AArch64, with a Python under qemu (10 minutes)
	$(RUN) tests/neon.py $(ARGS)

cross: $(TESTS)  ## compile the vector vocabularies for Windows and macOS, and run Windows' under Wine (5 minutes)
	$(PIP) install ziglang
	$(RUN) tests/cross.py

lint: $(DONE)/build $(DONE)/lint  ## check the style of Python and Cython
	$(RUN) -m ruff check
	PATH="$(CURDIR)/$(VENV)/bin:$$PATH" cython-lint fastdrop

types: $(DONE)/build $(DONE)/lint  ## run mypy in strict mode
	$(RUN) -m mypy

docs: $(DONE)/build $(DONE)/docs $(DONE)/demo $(DONE)/dask  ## build the pages in docs/_build/html; a warning is an error
	$(RUN) -m sphinx -W --keep-going -b html docs docs/_build/html

build: $(DONE)/build  ## compile in place what has changed

dist: $(DONE)/requires  ## build the source distribution and a wheel in dist/, and check them
	$(PIP) install build twine
	$(RUN) -m build
	$(RUN) -m twine check --strict dist/*

wheel: dist  ## test the installed wheel, without the source tree, with the oldest and the newest NumPy
	for numpy in 'numpy==2.0.*' numpy; do \
	    $(RUN) -m venv --clear build/wheel && cp -R tests pyproject.toml build/wheel && cd build/wheel && \
	    bin/python ../../tests/extras.py test demo > requirements.txt && \
	    bin/python -m pip --disable-pip-version-check install "$$numpy" -r requirements.txt \
	        "$$(ls -t ../../dist/fastdrop_kernels-*.whl | head -1)" && \
	    bin/python -m pytest $(ARGS) && cd ../.. || exit 1; \
	done

clean:  ## remove everything that was built, and .venv
	rm -rf $(VENV) docs/_build docs/gallery build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis .benchmarks
	find fastdrop tests examples benchmarks -name __pycache__ -prune -exec rm -rf {} +
	rm -f $(foreach folder,fastdrop fastdrop/core fastdrop/jax fastdrop/kernels fastdrop/torch,$(folder)/*.so $(folder)/*.c $(folder)/*.html)

# --- what the targets depend on ---

$(DONE)/venv: $(if $(USABLE),,remake)
	@mkdir -p $(@D) && touch $@

remake:
	@test -n "$(PYTHON)" || { echo "Python 3.10 or later was not found: make PYTHON=/path/to/python ..." >&2; exit 1; }
	rm -rf $(VENV)
	$(PYTHON) -m venv $(VENV)

$(DONE)/requires: pyproject.toml $(DONE)/venv
	$(PIP) install $(REQUIRES)
	@touch $@

# Everything is compiled first, because pip would be silent meanwhile. If the metadata may have changed, the package is
# installed in place again.
$(DONE)/build: $(SOURCES) $(DONE)/requires
	@echo "compiling what has changed; all of it takes a few minutes of processor time"
	$(RUN) setup.py --quiet build_ext --inplace
	@[ $(DONE)/installed -nt pyproject.toml ] && [ $(DONE)/installed -nt $(DONE)/requires ] || { set -x; \
	    $(PIP) install --no-build-isolation --no-deps --editable . && touch $(DONE)/installed; }
	@touch $@

# The package is installed already. This adds what its extra requires, without asking an index for the package.
$(DONE)/%: pyproject.toml | $(DONE)/build
	$(RUN) tests/extras.py $* > $@.txt
	$(PIP) install -r $@.txt
	@touch $@
