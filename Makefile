# make demo          sample data, training, evaluation, a page to look at
# make test          lint and all tests, but for the long ones
# make test-long     the long tests
# make test-newest   lint and a short selection of tests on the newest Python
# make clean         removes what these made: .venv, the sample, its run
PYTHON ?= python3
NEWEST ?= python3.13
VENV := .venv
RUN := $(VENV)/bin/python
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Tests start many processes, which would compile the same modules again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test test-long test-newest short lint clean

demo: $(VENV)/.installed
	$(RUN) launch.py --config=configs/sample.py --workdir=runs/demo
	$(RUN) -m pcl_jax.evaluate --workdir=runs/demo
	$(RUN) -m pcl_jax.report --workdir=runs/demo

test: $(VENV)/.installed-dev lint
	$(RUN) -m pytest -q -n 2 --dist loadfile -m "not long"

test-long: $(VENV)/.installed-dev
	$(RUN) -m pytest -q -n 2 --dist load -m long

test-newest:
	$(MAKE) PYTHON=$(NEWEST) VENV=.venv-newest short

short: $(VENV)/.installed-dev lint
	$(RUN) -m pytest -q -n 2 --dist loadfile -m "not long" \
	  tests/losses tests/models tests/checkpoint tests/embedding

lint: $(VENV)/.installed-dev
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(VENV)/bin/lint-imports --no-cache

# Nothing is downloaded again until the requirements change.
$(VENV)/.installed: requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or later is needed: make PYTHON=python3.11"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install -q -r requirements.txt
	touch $@

$(VENV)/.installed-dev: requirements-dev.txt $(VENV)/.installed
	$(RUN) -m pip install -q -r requirements-dev.txt
	touch $@

clean:
	rm -rf .venv .venv-newest runs/demo data/sample data/smoke
