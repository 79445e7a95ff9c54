# Every command of the project; `make help` lists them. Needs Python 3.11 or newer and make, nothing else.
# The distribution's Python where it is new enough: most are built with profile-guided optimisation, and the services
# run about a tenth faster on such a one. PYTHON=… names another.
PYTHON ?= $(shell /usr/bin/python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& echo /usr/bin/python3 || echo python3)
UV_VERSION := 0.13.9
UV := .tools/bin/uv
BIN := .venv/bin
export UV_PYTHON_DOWNLOADS = never
export UV_PYTHON = $(PYTHON)
SCOPE ?= full
# Byte code of what the processes import, once: every later start takes half the time.
WARM := import importlib; [importlib.import_module('fp_' + name + '.__main__') for name in '$(notdir $(wildcard services/*))'.split()]; import fp_operator.cli.app, fp_ofs.build, fp_ofs.pictures, fp_mf.job, fp_mf.pictures; import xgboost, sklearn.metrics

.DEFAULT_GOAL := help

.PHONY: help
help: ## List the commands
	@awk -F ':.*## ' '/^[a-z][a-z-]*:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(UV):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "python: $(PYTHON) is older than 3.11. Fix: make PYTHON=python3.12 …"; exit 4; }
	@rm -rf .tools
	@$(PYTHON) -m venv .tools >/dev/null 2>&1 || { rm -rf .tools; python3 -m venv .tools; } # Debian ships venv apart
	.tools/bin/pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)

.venv/.synced: $(UV) uv.lock pyproject.toml $(wildcard libs/*/pyproject.toml services/*/pyproject.toml jobs/*/pyproject.toml operator/pyproject.toml)
	$(UV) sync --frozen --quiet
	@PYTHONDONTWRITEBYTECODE= $(BIN)/python -c "$(WARM)"
	@touch $@

.PHONY: install
install: .venv/.synced ## Install everything the lock names into .venv

.PHONY: demo
demo: install ## Start the embedded stack, run the sample world from pin to verdict; SCOPE=spine is quick, FRESH=1 runs all anew
	@$(BIN)/fp demo --scope $(SCOPE) $(if $(FRESH),--fresh)

.PHONY: test
test: install ## Run the whole test suite against real servers (embedded)
	$(BIN)/pytest

.PHONY: unit
unit: install ## Run the tests that need no server
	$(BIN)/pytest -m "not stack and not system"

.PHONY: lint
lint: install ## Formatting, lint, types and import contracts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy $(wildcard libs/*/src services/*/src jobs/*/src operator/src)
	$(BIN)/lint-imports

.PHONY: fmt
fmt: install ## Format and mend what can be mended
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.PHONY: bench
bench: install ## Measure the chain and its stages; writes bench/results/
	$(BIN)/python bench/run.py

.PHONY: handbook
handbook: install ## The published folds from features that went through the whole platform; DATA=folder of the parquet files (≤ 45 min)
	@mkdir -p bench/results
	$(BIN)/python -m bench.handbook --data $(DATA) > bench/results/handbook.md; code=$$?; cat bench/results/handbook.md; exit $$code

.PHONY: test-mlflow
test-mlflow: install ## The model job against a real MLflow server, which gets an environment of its own
	cd tools/mlflow && $(CURDIR)/$(UV) sync --frozen --quiet
	FP_MLFLOW_COMMAND=tools/mlflow/.venv/bin/mlflow $(BIN)/pytest jobs/mf/tests/test_mlflow_server.py

.PHONY: faults
faults: install ## The kill tests: every service killed at its failpoints, equations checked after each
	$(BIN)/pytest -m "stack or system" -k "kill or crash or fault"

.PHONY: coverage
coverage: install ## Coverage of the unit tests (reported, not chased)
	$(BIN)/pytest -m "not stack and not system" --cov=libs --cov=services --cov=jobs --cov=operator --cov-report=term:skip-covered

.PHONY: test-spark
test-spark: $(UV) ## The dataset job on Spark, equal byte for byte to the embedded engine; needs Java 17
	cd tools/spark && $(CURDIR)/$(UV) sync --frozen --quiet
	tools/spark/.venv/bin/python -m pytest -p no:cacheprovider jobs/ofs/tests/test_spark.py

.PHONY: clean
clean: ## Remove environments and caches (never the .fp state folder)
	rm -rf .venv .tools tools/*/.venv .mypy_cache .ruff_cache .pytest_cache .hypothesis
