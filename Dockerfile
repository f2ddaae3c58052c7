# syntax=docker/dockerfile:1
# Two images from one file: `api` (small, without torch) and `worker` (the engine with it).

FROM python:3.11-slim-bookworm AS base
ENV PATH=/opt/pressroom/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PRESSROOM_DATA_DIR=/data
RUN useradd --system --uid 10001 --home-dir /data --shell /usr/sbin/nologin pressroom \
    && install --directory --owner=pressroom --mode=0750 /data
WORKDIR /data

FROM base AS build-api
WORKDIR /src
RUN python -m venv /opt/pressroom
COPY constraints.txt pyproject.toml README.md LICENSE ./
COPY app ./app
COPY migrations ./migrations
COPY pressroom ./pressroom
COPY workers ./workers
RUN pip install --no-cache-dir --constraint constraints.txt .

FROM build-api AS build-worker
# CPU wheels by default. A GPU image passes an index with CUDA wheels.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN pip install --no-cache-dir --index-url "$TORCH_INDEX" torch==2.13.0 \
    && pip install --no-cache-dir --constraint constraints.txt '.[worker]'

FROM base AS api
ENV PRESSROOM_HOST=0.0.0.0
COPY --from=build-api /opt/pressroom /opt/pressroom
USER pressroom
VOLUME /data
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s --retries=3 \
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8000/readyz', timeout=4)"]
CMD ["python", "-m", "uvicorn", "--factory", "app.main:create_app", "--host", "0.0.0.0", "--port", "8000"]

FROM base AS worker
# libgomp is what torch, onnxruntime and scikit-learn share for threads.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libgomp1 \
    && rm -rf /var/lib/apt/lists/*
COPY --from=build-worker /opt/pressroom /opt/pressroom
USER pressroom
VOLUME /data
HEALTHCHECK --interval=30s --timeout=15s --start-period=30s --retries=3 \
    CMD ["pressroom", "doctor", "--worker"]
CMD ["python", "-m", "workers.tasks", "cpu"]
