# Two commands: `make demo` and `make test`. Both install what they need into .venv first, and reuse it afterwards.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SOURCES := $(sort $(wildcard *.py $(foreach part,runtime export calib benchmarks,$(part)/*.py $(part)/*/*.py)))
# A strict editable install links single files, so it is renewed when the list of files changes.
LISTED := $(shell printf '%s\n' $(SOURCES) | cksum | cut -d' ' -f1)
INSTALLED := $(VENV)/.installed-$(LISTED)

.PHONY: demo test install lint docs clean

demo: install
	@echo "== demo: exports the small trained ST-LLM and asks it about rooms that it never saw"
	@$(BIN)/python -m stllm_edge.benchmarks.demo --out demo

test: install lint
	@echo "== tests"
	@$(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder

lint: install
	@echo "== ruff and mypy"
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy -p stllm_edge

install: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	@echo "== install into $(VENV): the first time llama-cpp-python compiles, about five minutes on two cores"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install -q --upgrade pip "setuptools>=77" wheel
	@$(BIN)/python -m pip install -q -c constraints.txt torch
	@$(BIN)/python -m pip install -qq -c constraints.txt -e ".[dev]" --config-settings editable_mode=strict
	@rm -f $(VENV)/.installed-*
	@touch $@

docs: install
	@$(BIN)/python docs/generate.py
	@$(BIN)/python docs/draw_architecture.py

clean:
	rm -rf $(VENV) build demo *.egg-info
