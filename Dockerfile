# Two images: `operator` (no torch) and `trainer`. `make images` builds both.
#   docker build --target trainer -t aurl-trainer .
#   docker build --target trainer --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cpu -t aurl-trainer .
# Wheels that lie on your disk:  --build-context wheels=/some/folder
FROM scratch AS wheels

# What is installed beside our own code comes first: a change of the code then rebuilds in seconds.
FROM python:3.11-slim-bookworm AS base
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
RUN useradd --uid 10001 --user-group --home-dir /home/aurl --create-home aurl
WORKDIR /src
COPY constraints.txt pyproject.toml README.md LICENSE ./
RUN for package in operator/aurl_operator trainer/aurl_trainer; do \
      mkdir -p $package && touch $package/__init__.py; \
    done

FROM base AS operator
RUN pip install -c constraints.txt '.[operator]' && pip uninstall --yes aurl
COPY operator operator
COPY trainer trainer
RUN pip install --no-deps . && rm -rf /src/*
USER 10001:10001
WORKDIR /home/aurl
ENTRYPOINT ["aurl-operator"]

FROM base AS trainer
ARG TORCH_INDEX=
RUN --mount=from=wheels,target=/wheels \
    pip install -c constraints.txt --find-links /wheels ${TORCH_INDEX:+--extra-index-url $TORCH_INDEX} torch
RUN --mount=from=wheels,target=/wheels \
    pip install -c constraints.txt --find-links /wheels '.[operator,trainer]' && pip uninstall --yes aurl
COPY operator operator
COPY trainer trainer
RUN pip install --no-deps . && rm -rf /src/*
USER 10001:10001
WORKDIR /home/aurl
# Caches of music21, MidiTok and prepared data go to a volume: the root file system is read-only.
ENV XDG_CACHE_HOME=/tmp/cache HOME=/tmp/home OMP_NUM_THREADS=1
ENTRYPOINT ["python", "-m", "aurl_trainer"]
