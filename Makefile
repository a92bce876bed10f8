# On a fresh machine each target first makes .venv and installs the locked versions into it; no root needed.
#   make figures   figures 1 to 5 of the default scale      make test   the tests that this machine allows
#   make all       with the supplement and the claims       TORCH_INDEX=URL   another wheel index for torch
#   make report    one HTML page of what has been made: results/<scale>/report.html
PYTHON ?= python3
TORCH_INDEX ?=
CORES ?= $(shell getconf _NPROCESSORS_ONLN)
SCALE ?= quick
VENV := .venv
RUN := $(VENV)/bin/python -m

.PHONY: all figures report test install
.DEFAULT_GOAL := figures

figures: $(VENV)/installed
	$(RUN) snakemake figures --cores $(CORES) --quiet rules --config scale=$(SCALE)

all: $(VENV)/installed
	$(RUN) snakemake all --cores $(CORES) --quiet rules --config scale=$(SCALE)

report: $(VENV)/installed
	made=$$($(RUN) l2dyn made --scale $(SCALE)) && $(RUN) snakemake $$made --report results/$(SCALE)/report.html \
	  --config scale=$(SCALE)

# One thread a process, a process a core: products as small as those of the tests gain nothing from more threads.
test: export OMP_NUM_THREADS ?= 1
test: $(VENV)/installed
	$(RUN) pytest -n $(CORES) src tests

install: $(VENV)/installed

$(VENV)/installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "l2dyn needs Python 3.11 or later; name one with: make PYTHON=python3.11 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(RUN) pip install --quiet --disable-pip-version-check -r requirements.lock \
	  $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))
	$(RUN) pip install --quiet --disable-pip-version-check --no-deps --editable .
	$(RUN) l2dyn.config.schema
	touch $@
