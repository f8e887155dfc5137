# Everything here makes its own virtual environment in $(VENV); nothing else on the machine is touched.
VENV ?= .venv
BIN := $(VENV)/bin
# the first Python that is new enough; name another with PYTHON=...
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)

.PHONY: demo test unit test-slow test-extras lint install help clean

help:
	@echo "make demo      demonstrations, a policy, its evaluation, a video: some five minutes after the install"
	@echo "make test      all tests, types, style and the layer contract"
	@echo "make test-slow     tests that train until something works"
	@echo "make test-extras   tests in worlds that need an environment of their own (metaworld, robosuite, warp, ray), and LeRobot"
	@echo "make install   robopol in $(VENV)"

demo: install
	$(BIN)/robopol collect env=push out=runs/demos/push.hdf5 episodes=200
	$(BIN)/robopol train experiment=demo data.demos.uri=runs/demos/push.hdf5

# types and style beside the tests: a type checker keeps one core busy for a minute
test: $(VENV)/.test
	$(MAKE) -j2 lint unit VENV=$(VENV)

unit: $(VENV)/.test
	$(BIN)/python -m pytest -n 2 --dist loadfile

test-slow: $(VENV)/.test
	$(BIN)/python -m pytest -n 2 -m slow

# Each in $(VENV)-<name>. TORCH names another build of torch, e.g. TORCH=torch==2.13.0+cpu.
test-extras: $(VENV)-metaworld/.test $(VENV)-robosuite/.test $(VENV)-warp/.test $(VENV)-ray/.test $(VENV)-lerobot/.test
	$(VENV)-metaworld/bin/python -m pytest tests/extras/metaworld
	$(VENV)-robosuite/bin/python -m pytest tests/extras/robosuite
	$(VENV)-warp/bin/python -m pytest tests/extras/warp
	$(VENV)-lerobot/bin/python -m pytest tests/extras/lerobot
	$(VENV)-ray/bin/python -m pytest tests/envs/test_ray.py tests/sweeps/test_launchers.py

$(VENV)-%/.test: pyproject.toml
	@test -n "$(PYTHON)" || { echo "robopol needs Python 3.11 or newer: make PYTHON=/path/to/python"; exit 1; }
	$(PYTHON) -m venv $(VENV)-$*
	$(VENV)-$*/bin/python -m pip install --quiet --upgrade "pip>=25.1"
	$(if $(TORCH),$(VENV)-$*/bin/python -m pip install --quiet "$(TORCH)")
	$(VENV)-$*/bin/python -m pip install --quiet --editable . --group test-$*
	$(if $(filter robosuite,$*),$(VENV)-$*/bin/python -m pip install --quiet --no-deps robosuite==1.5.2 robomimic==0.3.0)
	$(if $(filter lerobot,$*),$(VENV)-$*/bin/python -m pip install --quiet --no-deps lerobot==0.4.4)
	@touch $@

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

install: $(VENV)/.run

$(VENV)/.venv:
	@test -n "$(PYTHON)" || { echo "robopol needs Python 3.11 or newer: install it, or say make PYTHON=/path/to/python"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	@touch $@

$(VENV)/.run: $(VENV)/.venv pyproject.toml
	$(BIN)/python -m pip install --quiet --editable .
	@touch $@

# robomimic without what it pins: its data loader checks our files, its policies act here; what is never imported need
# not be compiled
$(VENV)/.test: $(VENV)/.venv pyproject.toml
	$(BIN)/python -m pip install --quiet --no-compile --editable . --group test
	$(BIN)/python -m pip install --quiet --no-compile --no-deps robomimic==0.3.0
	@touch $(VENV)/.run $@

clean:
	rm -rf $(VENV) $(VENV)-metaworld $(VENV)-robosuite $(VENV)-warp $(VENV)-ray $(VENV)-lerobot build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
