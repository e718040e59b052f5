# diffground with its pipeline.
#
#   docker build -t diffground .                                          # PyTorch for the CPU
#   docker build -t diffground:gpu --build-arg DEVICE=gpu .               # PyTorch with CUDA, as in requirements.lock
#   docker build -t diffground --build-arg EXTRAS="pipeline flows ray" .  # more extras of pyproject.toml
#   docker run --rm -v diffground-data:/diffground/data -v diffground-dvc:/diffground/.dvc/cache diffground
#
# For GPUs add `--gpus all` to docker run; the host needs the NVIDIA container toolkit.
FROM python:3.11-slim-bookworm

ARG DEVICE=cpu
ARG EXTRAS=pipeline

SHELL ["/bin/bash", "-o", "pipefail", "-c"]

# git: for DVC; libgomp1: OpenMP of torch and scikit-learn
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends git libgomp1 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 1000 diffground \
    && install -d -o diffground /diffground

WORKDIR /diffground
ENV PIP_NO_CACHE_DIR=1 UV_NO_CACHE=1 PYTHONUNBUFFERED=1 DVC_NO_ANALYTICS=1 MLFLOW_DISABLE_TELEMETRY=true

# Dependencies first, so that a change of the code does not install them again. Versions are those of the lock. Its hashes
# are left out, because they are not those of PyTorch's CPU build.
COPY pyproject.toml requirements.lock ./
RUN sed -n '/^uv==/,/[^\\]$/p' requirements.lock > uv.txt \
    && sed -E '/^ *--hash/d; s/ *\\$//' requirements.lock > versions.txt \
    && python -m pip install --require-hashes -r uv.txt \
    && { printf -- '--extra %s ' ${EXTRAS}; if [ "${DEVICE}" = cpu ]; then echo --torch-backend=cpu; fi; } \
    | xargs uv pip install --system --constraint versions.txt -r pyproject.toml "hatchling>=1.27" "editables>=0.5" \
    && rm uv.txt versions.txt

COPY --chown=1000:1000 . .
RUN uv pip install --system --no-deps --no-build-isolation -e . \
    && install -d -o diffground data .dvc/cache

USER 1000:1000
# Without a clone there is no git: DVC runs without it. Mount a clone over /diffground for `diffground experiments`.
RUN dvc config --local core.no_scm true

CMD ["diffground", "reproduce"]
