# make demo, make demo-video: install, pretrain, train a task, and a table of what came out.
# make test: install, lint, test.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo demo-video test lint clean

demo: .venv/.runtime
	$(BIN)/python run_demo.py

demo-video: .venv/.runtime
	$(BIN)/python run_demo_video.py

# One thread and one process for each of two cores; the tests of a file share what they have trained.
test: .venv/.development lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

lint: .venv/.development
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

.venv/.runtime: requirements.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@

.venv/.development: requirements.txt requirements-dev.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	touch $@ .venv/.runtime

clean:
	rm -rf .venv result .pytest_cache .ruff_cache
