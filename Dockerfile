# Two images from one file. Continuous integration does not build them (it has no Docker); tests/test_compose.py reads them.
#   docker build --target api    -t bequest-api .                          no TensorFlow
#   docker build --target worker -t bequest-worker .                       TensorFlow on the CPU; also runs inference
#   docker build --target worker -t bequest-worker-gpu --build-arg EXTRA=gpu .   TensorFlow with CUDA from wheels

FROM python:3.12-slim-bookworm AS base
ENV PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1

# The wheel of Bequest, made by the locked build tool.
FROM base AS wheel
WORKDIR /src
COPY requirements-build.lock ./
RUN python -m venv /build && /build/bin/pip install --require-hashes -r requirements-build.lock
COPY pyproject.toml README.md LICENSE NOTICE ./
COPY app app
COPY worker worker
COPY migrations migrations
RUN /build/bin/hatchling build -t wheel -d /wheel

# The packages come before the wheel: a change of the source leaves their layer as it is.
FROM base AS api-venv
COPY requirements-api.lock ./
RUN python -m venv /opt/bequest && /opt/bequest/bin/pip install --require-hashes -r requirements-api.lock
COPY --from=wheel /wheel /wheel
RUN /opt/bequest/bin/pip install --no-deps /wheel/*.whl

FROM base AS worker-venv
ARG EXTRA=worker
COPY requirements-${EXTRA}.lock ./
RUN python -m venv /opt/bequest && /opt/bequest/bin/pip install --require-hashes -r requirements-${EXTRA}.lock
COPY --from=wheel /wheel /wheel
RUN /opt/bequest/bin/pip install --no-deps /wheel/*.whl

# Whoever gets out of a program here is nobody: no password, no shell, one folder to write in.
FROM base AS runtime
RUN groupadd --gid 10001 bequest \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /data --shell /usr/sbin/nologin bequest \
    && install --directory --owner=10001 --group=10001 --mode=0750 /data
ENV PATH=/opt/bequest/bin:$PATH PYTHONSAFEPATH=1 BEQUEST_DATA=/data BEQUEST_LOG_FORMAT=json
# uvicorn and Celery take modules from the folder that they work in: it is one that they cannot write to.
WORKDIR /opt/bequest
USER 10001:10001
VOLUME /data

FROM runtime AS api
COPY --from=api-venv /opt/bequest /opt/bequest
EXPOSE 8000
# As api_command in app/serve.py. Open streams would keep it for ever: after 5 s they are closed, and clients resume where they were.
CMD ["uvicorn", "app.main:app", "--http", "app.api.connections:Connection", "--ws", "none", "--backlog", "128", "--timeout-keep-alive", "75", "--no-server-header", "--no-access-log", "--host", "0.0.0.0", "--port", "8000", "--timeout-graceful-shutdown", "5"]
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/healthz', timeout=4)"]

FROM runtime AS worker
COPY --from=worker-venv /opt/bequest /opt/bequest
# KERAS_HOME: Keras writes its configuration beside the data otherwise.
ENV TF_CPP_MIN_LOG_LEVEL=2 KERAS_HOME=/tmp/keras
CMD ["celery", "-A", "worker.main", "worker", "-P", "solo", "-c", "1", "--without-gossip", "--without-mingle", "--without-heartbeat", "--loglevel", "INFO"]
# Alive means: the worker's row in the database was touched within the last minute.
HEALTHCHECK --interval=30s --timeout=10s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import os, socket, sys, psycopg; c = psycopg.connect(os.environ['DATABASE_URL'], connect_timeout=5); sys.exit(c.execute(\"SELECT 1 FROM workers WHERE host = %s AND heartbeat_at > now() - interval '60 seconds'\", [socket.gethostname()]).fetchone() is None)"]
