# Each target makes what it needs: from a fresh clone, `make demo` or `make test` is enough.
# Environments lie in .venv and .tools; `make clean` removes them.

.PHONY: demo test lint bench plugin ci-full verify-official clean
# One process a core: threads of one would wait for each other's cores.
PYTEST := .venv/bin/pytest -n auto --maxprocesses 8 --dist loadfile
SOURCES := pyproject.toml constraints.txt .ci/environment kernels/CMakeLists.txt $(wildcard kernels/*/*)

demo: .venv/.ready-base
	.venv/bin/geoseg demo geoseg-demo

test: .venv/.ready-full
	$(PYTEST)

lint: .venv/.ready-full
	.venv/bin/ruff format --check geoseg tests kernels qgis_plugin
	.venv/bin/ruff check geoseg tests kernels qgis_plugin
	.venv/bin/mypy
	.venv/bin/lint-imports
	.venv/bin/pylint geoseg

bench: .venv/.ready-full
	.venv/bin/python -m tests.benchmarks.models.run
	.venv/bin/python -m tests.benchmarks.predict.run
	.venv/bin/python -m tests.benchmarks.vectorize.run
	.venv/bin/python kernels/benchmarks/run.py

# The zip that QGIS's repository takes, with the checks that it runs.
plugin: .venv/.ready-full
	.venv/bin/python qgis_plugin/collect_strings.py --check
	.venv/bin/python qgis_plugin/build_plugin.py --all-tools

# The slow rest: slow tests, every Python, oldest allowed versions, no compiler, the wheel alone.
ci-full: .venv/.ready-full
	$(PYTEST) --slow
	sh .ci/full

# Needs a network that reaches the publishers.
verify-official: .venv/.ready-full
	.venv/bin/pytest --network tests/models/test_official.py

.venv/.ready-%: $(SOURCES)
	sh .ci/environment $*

clean:
	rm -rf .venv .tools build dist geoseg/_lib geoseg-demo
