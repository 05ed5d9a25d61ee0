# From a fresh clone, with git, make, a C compiler and Python 3.10 or later:
#
#   make demo       what the pool does, live
#   make test       the tests; then on a build with assertions; then traced, with the coverage of the core; then the
#                   simulator for a minute, with a new seed; where CI=true is set, with one that is always the same
#   make simulate   the pool in simulated worlds: SEED is drawn and printed where none is given, STEPS are a million, PART
#                   is core, growth, asyncio, threads or all. The same SEED does the same again, to the same trace hash.
#   make mutants    small wrong changes to the pool, each of which the simulator has to find
#   make test-oldest  the tests of the pools for SQLAlchemy with the oldest SQLAlchemy that they are for
#   make tsan       threads without the GIL under ThreadSanitizer, on an interpreter built for it: TSAN_PYTHON=path
#   make lint       formatting, linters, types, the stub of the core, the generated half, the workflows
#   make docs       the documentation, into build/docs
#   make test-docs  the documentation in a browser: search, buttons, themes, two widths; needs Chromium and its driver
#   make bench      the pool beside its peers, on the newest CPython that is there
#   make bench-servers  the pool beside the drivers' own, on a real PostgreSQL and Redis
#   make bench-dropins  the drop-ins beside psycopg_pool and SQLAlchemy's QueuePool, on a real PostgreSQL
#   make wheel      sdist and wheel into dist/, the wheel tried in an empty environment
#   make test-sdist the tests of the sdist on the wheel, as the workflow that makes the wheels runs them
#   make generate   the threading half from the asyncio half
#   make changelog  what the next release will say; make release-notes puts it into CHANGELOG.md
#   make format     formats and sorts what the linters would complain about
#   make clean      removes whatever of this was made
#
# PYTHON chooses the interpreter of .venv when that is made, PYTEST_ARGS goes to every run of pytest, DEMO_ARGS to the
# demo, BENCH_ARGS to the benchmark, MUTANTS_ARGS to the wrong changes; TSAN_CYCLES is how often each thread of make tsan
# acquires and releases, TSAN_SEED draws what it does, if not a new seed each time; PYTEST_WORKERS is how many tests run at
# a time (0: one, in the process itself).

PYTHON ?= python3
VENV ?= .venv
PYTEST_ARGS ?=
PYTEST_WORKERS ?= 3
DEMO_ARGS ?=
BENCH_ARGS ?=
TSAN_PYTHON ?=
TSAN_CYCLES ?= 3000
TSAN_SEED ?=
MUTANTS_ARGS ?=

# Without the cache each process that runs tests would compile all of them anew, and each program that they start gcpool.
unexport PYTHONDONTWRITEBYTECODE

.DELETE_ON_ERROR:
.NOTPARALLEL:
.SUFFIXES:

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
PARALLEL := --numprocesses $(PYTEST_WORKERS) --dist worksteal
PYTEST := $(BIN)/python -m pytest $(PARALLEL) $(PYTEST_ARGS)

CORE := $(wildcard $(foreach part,_core _engine/* _facade/*,$(addprefix src/gcpool/$(part).,pyx pxi pxd))) setup.py
SOURCES := $(CORE) pyproject.toml MANIFEST.in $(shell find src -name '*.py' -o -name '*.pyi' -o -name py.typed)
# What the sdist holds besides, as MANIFEST.in says; what tests and tools leave there is no part of it.
SHIPPED := LICENSE Makefile CITATION.cff $(wildcard *.md) $(shell find tests examples docs bench changes .github -type f \
	-not -path '*/__pycache__/*' -not -name '_probe*' -not -name '*.so')

.PHONY: demo test forget-skips test-plain test-assert coverage test-simulate simulate mutants test-oldest test-installed test-sdist tsan lint docs test-docs bench bench-environment bench-servers bench-dropins wheel generate changelog release-notes format build clean

# ---- environments -------------------------------------------------------------------------------------------------

$(VENV)/.created:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "gcpool needs Python 3.10 or later, $(PYTHON) is " + sys.version.split()[0])'
	@$(PYTHON) -c 'import ensurepip, venv' || { echo 'the venv module of $(PYTHON) is missing (Debian: apt-get install python3-venv)' >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet --upgrade 'pip>=25.1'
	@touch $@

# A group of [dependency-groups] in pyproject.toml.
$(VENV)/.group-%: pyproject.toml $(VENV)/.created
	$(PIP) install --quiet --group $*
	@touch $@

# Editable: a change of Python code needs no build, a change of the core rebuilds it in src/.
$(VENV)/.built: $(CORE) pyproject.toml src/gcpool/_version.py $(VENV)/.group-build
	env -u GCPOOL_ASSERT -u GCPOOL_TRACE $(PIP) install --quiet --no-build-isolation --editable '.[demo]'
	@touch $@

build: $(VENV)/.built

# ---- the program --------------------------------------------------------------------------------------------------

demo: $(VENV)/.built
	$(BIN)/python -m gcpool demo $(DEMO_ARGS)

bench: $(VENV)/.built $(VENV)/.group-bench
	$(BIN)/python -m bench $(BENCH_ARGS)

# For python -m bench, which runs on the newest CPython that is there, in an environment of its own.
BENCH_GROUP ?= bench
bench-environment: $(VENV)/.built $(VENV)/.group-$(BENCH_GROUP)

bench-servers: $(VENV)/.built $(VENV)/.group-bench
	$(BIN)/python -m bench.servers $(BENCH_ARGS)

bench-dropins: $(VENV)/.built $(VENV)/.group-bench
	$(BIN)/python -m bench.dropins $(BENCH_ARGS)

docs: $(VENV)/.built $(VENV)/.group-docs
	$(BIN)/python -m sphinx -W --keep-going --quiet -b html docs build/docs

.PHONY: test-docs
test-docs: docs $(VENV)/.group-docs-browser
	$(BIN)/python -m pytest $(PYTEST_ARGS) tests/docs_browser.py

# ---- tests --------------------------------------------------------------------------------------------------------

# What was skipped, in any of the runs, is the last that is told. A run by itself tells it at its own end.
test: forget-skips test-plain test-assert coverage test-simulate
	@$(BIN)/python -m tests.skips $(SKIPS)

SKIPS := build/skips
test-plain test-assert coverage: export GCPOOL_NOTE_SKIPS = $(CURDIR)/$(SKIPS)
forget-skips:
	@rm -f $(SKIPS)

test-plain: $(VENV)/.built $(VENV)/.group-test
	GCPOOL_EXPECT_BUILD=src $(PYTEST)

# All of them, since what is asserted has to hold in outages, too, and in programs that fork or replace threads; but quick.
test-assert: $(VENV)/.built $(VENV)/.group-test
	$(BIN)/python .github/scripts/build_variant.py assert build/assert
	PYTHONPATH=$(CURDIR)/build/assert/src GCPOOL_EXPECT_BUILD=build/assert GCPOOL_QUICK=1 $(PYTEST)

# The group test has the newest SQLAlchemy. The release before it is still in wide use, and has other internals.
OLDEST := .venv-oldest
$(OLDEST)/.created: pyproject.toml $(VENV)/.created
	$(PYTHON) -m venv $(OLDEST)
	$(OLDEST)/bin/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(OLDEST)/bin/python -m pip --disable-pip-version-check install --quiet --group test-core --group drivers --group sqlalchemy \
		pytest-xdist fastapi 'sqlalchemy<2.1'
	@touch $@

test-oldest: $(VENV)/.built $(OLDEST)/.created
	PYTHONPATH=$(CURDIR)/src GCPOOL_EXPECT_BUILD=src $(OLDEST)/bin/python -m pytest $(PARALLEL) $(PYTEST_ARGS) \
		$(wildcard tests/contrib/test_sqlalchemy*.py)

# The interpreter is a CPython that was configured with --disable-gil --with-thread-sanitizer. It need not be installed: in
# its build folder it finds its list of known reports, too. The program fails if a report names the core.
tsan: $(VENV)/.group-build
	@test -n '$(TSAN_PYTHON)' || { echo 'make tsan needs TSAN_PYTHON=path of a CPython that was configured with' \
		'--disable-gil --with-thread-sanitizer' >&2; exit 1; }
	$(BIN)/python .github/scripts/build_variant.py tsan build/tsan '$(TSAN_PYTHON)'
	$(BIN)/python .github/scripts/run_tsan.py build/tsan '$(TSAN_PYTHON)' tests/tsan/stress.py $(TSAN_CYCLES) $(TSAN_SEED)

# Tracing is slow, so the quick form. It runs in the directory that the paths in the traced core are relative to. The
# second report fails unless the core is in it: with a wrong switch at build or at run it vanishes, and the first one
# does not say so.
COVERAGE := $(abspath $(BIN))/python -m coverage
coverage: export COVERAGE_CORE = ctrace
coverage: export COVERAGE_FILE = $(CURDIR)/build/trace/.coverage
coverage: export COVERAGE_RCFILE = $(CURDIR)/pyproject.toml
coverage: $(VENV)/.built $(VENV)/.group-test
	$(BIN)/python .github/scripts/build_variant.py trace build/trace
	cd build/trace && PYTHONPATH=$(CURDIR)/build/trace/src GCPOOL_EXPECT_BUILD=. GCPOOL_QUICK=1 $(COVERAGE) run -m pytest \
		--quiet --config-file $(CURDIR)/pyproject.toml --rootdir $(CURDIR) $(PYTEST_ARGS) \
		--timeout 600 -o faulthandler_timeout=500 $(COVERAGE_TESTS)
	cd build/trace && $(COVERAGE) report
	@echo 'The compiled core:'
	cd build/trace && $(COVERAGE) report --include='*/gcpool/_core.pyx,*/gcpool/*/*.pxi' --fail-under=$(CORE_COVERAGE)

# Per cent of the lines of the core that these tests must reach. Tracing runs Python code between any two lines of the core,
# so that a region that the GIL makes atomic is not: what is traced are tests of one thread. Left out, too, are those that run
# programs of their own, and those that collect garbage at every allocation, which take minutes when they are traced.
CORE_COVERAGE ?= 75
COVERAGE_TESTS := $(addprefix $(CURDIR)/,$(filter-out tests/engine/test_memory.py tests/engine/test_threads.py,$(wildcard tests/engine/test_*.py)) \
	$(addprefix tests/pool/test_,$(addsuffix .py,api bad_input behaviour close contexts faults holders monitoring)) tests/asyncio_/test_event_loop.py \
	$(addprefix tests/pool_threads/test_,$(addsuffix .py,api bad_input)))

# Seconds for each of the four parts of the simulator: of the clock, with a new seed each time. With CI=true, as for
# Hypothesis, nothing is drawn: the steps of so many seconds on a quiet machine, the same ones on every machine.
SIMULATE_SECONDS ?= $(if $(filter 1,$(GCPOOL_QUICK)),2,20)
PART ?= all
simulate: $(VENV)/.built $(VENV)/.group-test
	$(BIN)/python -m tests.simulation $(PART) $(if $(SEED),--seed $(SEED)) $(if $(STEPS),--steps $(STEPS)) $(SIMULATE_ARGS)

test-simulate: $(VENV)/.built $(VENV)/.group-test
	$(BIN)/python -m tests.simulation all $(if $(filter true,$(CI)),--fixed,--seconds) $(SIMULATE_SECONDS)

mutants: $(VENV)/.built $(VENV)/.group-test
	$(BIN)/python -m tests.simulation.mutants $(MUTANTS_ARGS)

# The tests, quick, on the sdist as another interpreter installs it: make test-installed PYTHON=python3.10
# Without outages and programs, which take more than a minute on each: the job `test` of the workflows runs them there.
# A free-threaded one has a group of its own, without what switches its GIL on.
INSTALLED := .venv-installed
PRINT_TEST_GROUP := import sysconfig; print("test" + "-free-threaded" * bool(sysconfig.get_config_var("Py_GIL_DISABLED")))
test-installed: dist/.built
	@rm -rf $(INSTALLED)
	$(PYTHON) -m venv $(INSTALLED)
	$(INSTALLED)/bin/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(INSTALLED)/bin/python -m pip --disable-pip-version-check install --quiet dist/*.tar.gz --group \
		$$($(INSTALLED)/bin/python -c '$(PRINT_TEST_GROUP)')
	GCPOOL_EXPECT_BUILD=$(INSTALLED) GCPOOL_QUICK=1 $(INSTALLED)/bin/python -m pytest --quiet $(PARALLEL) -m 'not outage and not program' \
		$(PYTEST_ARGS)
	@rm -rf $(INSTALLED)

# ---- distribution -------------------------------------------------------------------------------------------------

# The wheel is built from the sdist, so both are tried. In the empty environment nothing may be installed but gcpool.
dist/.built: $(SOURCES) $(SHIPPED) $(VENV)/.group-package
	rm -rf dist build/empty build/lib.* build/bdist.* build/temp.*
	@mkdir -p build
	env -u GCPOOL_ASSERT -u GCPOOL_TRACE $(BIN)/python -m build --outdir dist . > build/package.log 2>&1 \
		|| { cat build/package.log; exit 1; }
	$(BIN)/python -m twine check --strict dist/*
	$(BIN)/python .github/scripts/check_wheel.py dist
	$(BIN)/python -m venv build/empty
	build/empty/bin/python -m pip --disable-pip-version-check install --quiet --no-index --find-links dist --no-deps gcpool
	build/empty/bin/python -I .github/scripts/try_installed.py
	@touch $@

wheel: dist/.built
	@ls -l dist

# What cibuildwheel tests with brings no drivers along, and what needs one is skipped: nothing else is, where skips are
# forbidden.
test-sdist: dist/.built
	GCPOOL_ALLOW_SKIPS='not installed|could not import' $(BIN)/python .github/scripts/test_sdist.py dist build/sdist \
		$(PARALLEL) $(PYTEST_ARGS)

# ---- checks -------------------------------------------------------------------------------------------------------

# cython-lint looks for pycodestyle on PATH.
lint: export PATH := $(abspath $(BIN)):$(PATH)
lint: $(VENV)/.built $(VENV)/.group-lint
	@mkdir -p build
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/cython-lint src tests
	$(BIN)/python .github/scripts/generate_threading.py --check
	$(BIN)/mypy
	$(BIN)/python -m mypy.stubtest --mypy-config-file pyproject.toml --allowlist .github/scripts/stubtest-allowlist.txt gcpool._core
	$(BIN)/pyright
	$(BIN)/python .github/scripts/check_samples.py
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.dependabot .github/dependabot.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.github-issue-config .github/ISSUE_TEMPLATE/config.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.github-issue-forms $(filter-out %/config.yml,$(wildcard .github/ISSUE_TEMPLATE/*.yml))
	$(BIN)/check-jsonschema --builtin-schema vendor.citation-file-format CITATION.cff
	$(BIN)/towncrier build --draft --version next > build/changelog.md 2>&1 || { cat build/changelog.md; exit 1; }
	$(BIN)/zizmor --offline --no-progress --persona pedantic .github

# The version is that of the package, which a release sets first.
RELEASE = $$($(BIN)/python -c 'import runpy; print(runpy.run_path("src/gcpool/_version.py")["__version__"])')
changelog: $(VENV)/.group-changelog
	$(BIN)/towncrier build --draft --version "$(RELEASE)"

release-notes: $(VENV)/.group-changelog
	$(BIN)/towncrier build --yes --version "$(RELEASE)"

generate: $(VENV)/.group-test
	$(BIN)/python .github/scripts/generate_threading.py

format: $(VENV)/.group-lint
	$(BIN)/ruff check --fix --exit-zero --quiet .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) $(OLDEST) $(INSTALLED) build dist src/*.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage*
	rm -f src/gcpool/_core.c src/gcpool/_core*.so
	find . -name __pycache__ -not -path './.git/*' -prune -exec rm -rf {} +
