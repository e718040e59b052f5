# Two commands on a fresh machine: `make reproduce` and `make test`. Both set up .venv first.
PYTHON ?= $(firstword $(shell command -v python3.11 python3.12 python3.13 python3 2>/dev/null))
VENV := .venv
DETECTRON2_VENV := .venv-detectron2
IN_VENV := . $(VENV)/bin/activate &&
PYTEST := PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 GOMP_SPINCOUNT=0 python -m pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

.PHONY: setup reproduce test test-slow check docs detectron2 test-detectron2 deps ship readme lock clean

setup: $(VENV)/installed

# uv, of the version in the lock, installs in seconds what takes pip minutes; pip is the fallback.
$(VENV)/installed: requirements.lock pyproject.toml
	@echo "Setting up $(VENV): downloads 3.7 GB, takes 7.5 GB on disk, 4 GB of them CUDA libraries of PyTorch"
	$(PYTHON) -m venv $(VENV)
	sed -n '/^uv==/,/[^\\]$$/p' requirements.lock > $(VENV)/uv.txt
	$(IN_VENV) python -m pip install --quiet --require-hashes -r $(VENV)/uv.txt \
		&& uv pip install --quiet --require-hashes --compile-bytecode -r requirements.lock \
		|| python -m pip install --quiet --require-hashes -r requirements.lock
	$(IN_VENV) python -m pip install --quiet --no-deps --no-build-isolation -e .
	touch $@

# The whole method, with the parameters of params.yaml; does nothing when nothing changed.
reproduce: setup
	@$(IN_VENV) diffground reproduce

# A worker per core; each computes on one thread, and threads of what it starts do not spin while they wait for a core.
# Hundreds of processes are started: they must not compile this package again and again.
test: setup
	$(IN_VENV) $(PYTEST)

# What takes up to minutes per test: kills at random moments, whole DAGs, ablations, instruction sets, the long notebook,
# the paper's true sizes (6 GiB).
test-slow: setup
	$(IN_VENV) $(PYTEST) -m slow tests/pipeline tests/examples tests/shapes tests/unit/runtime

# What the pre-commit hooks look at.
check: setup
	$(IN_VENV) ruff check . && ruff format --check . && mypy

# The documentation as HTML in docs/_build/html; needs no network, and a warning is an error.
docs: setup
	$(IN_VENV) python -m sphinx -W --keep-going --quiet -b html docs docs/_build/html

# detectron2 and the authors' MaskFormer, in an environment of their own, from archives: SOURCES=FOLDER or SOURCES="URL URL".
detectron2: setup
	$(IN_VENV) python tools/build_detectron2.py $(DETECTRON2_VENV) $(SOURCES)

# The tests of the code that uses them; without them they are skipped in `make test`.
test-detectron2:
	. $(DETECTRON2_VENV)/bin/activate && python -c "import detectron2._C, mask_former" && $(PYTEST) \
		tests/real_packages tests/unit/detection/test_detectron2_backend.py tests/unit/segmentation/test_detectron2_backend.py

# Writes into dvc.yaml which code each stage depends on, as its imports say.
deps: setup
	$(IN_VENV) python -m diffground.reproduction.dependencies

# Copies the trained models of the last reproduction into models/mini, for clones to use at once.
ship: setup
	$(IN_VENV) python -m diffground.reproduction.ship

# Copies the tables of the last reproduction into README.md.
readme: setup
	$(IN_VENV) python -m diffground.report.readme

# Newest versions that pyproject.toml allows and that go together with every extra; needs uv.
lock:
	uv pip compile pyproject.toml --universal --python-version 3.11 --all-extras --upgrade --no-annotate --no-header \
		--quiet -o .lock-all-extras
	{ echo "# Exact versions of the dependencies and of the extras pipeline, flows, ray, s3 and dev,"; \
	  echo "# with the hashes of every platform's files."; \
	  echo "# Install: pip install --require-hashes -r requirements.lock"; \
	  echo "# Renew:   make lock"; \
	  uv pip compile pyproject.toml --universal --python-version 3.11 --extra pipeline --extra dev --extra flows --extra ray --extra s3 \
		--constraint .lock-all-extras --generate-hashes --no-emit-index-url --no-annotate --no-header --quiet; } > .lock-new
	mv .lock-new requirements.lock
	rm .lock-all-extras

clean:
	rm -rf $(VENV) $(DETECTRON2_VENV) docs/_build docs/_generated .pytest_cache .mypy_cache .ruff_cache
