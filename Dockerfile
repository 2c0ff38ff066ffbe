# Images of the workbook, made by the same set-up as a clone's:
#
#   docker build --target cpu  -t kvqbook .
#   docker build --target cuda -t kvqbook:cuda .
#   docker build --target singleuser -t kvqbook:hub .       a participant's server, for JupyterHub: docs/workshop.md
#   docker run --rm -p 127.0.0.1:8888:8888 kvqbook
#   docker run --rm -p 127.0.0.1:8888:8888 --gpus all kvqbook:cuda
#
# Jupyter prints its address with the token. NVIDIA's driver, 580 or newer, is the host's; its libraries come in wheels.

# ./scripts/test-bare runs these steps without a container engine.
FROM debian:12-slim AS machine
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates gcc libc6-dev libstdc++6 python3 python3-venv util-linux \
    && rm -rf /var/lib/apt/lists/*
# The set-up fetches the toolchain that go.mod names; any Go since 1.26 can do that.
COPY --from=golang:1.26-bookworm /usr/local/go /usr/local/go
ENV PATH=/usr/local/go/bin:$PATH
# Jupyter runs cells, so it does not run as root.
RUN useradd --create-home reader

FROM machine AS base
USER reader
WORKDIR /home/reader/kvqbook
COPY --chown=reader:reader . .
# Inside the container every address is the container's; what reaches it from outside is up to -p above.
ENTRYPOINT ["./scripts/workbook", "--ServerApp.ip=0.0.0.0", "--no-browser"]
EXPOSE 8888

FROM base AS cpu
RUN ./scripts/setup

FROM base AS cuda
RUN ./scripts/setup --cuda

# A hub mounts the participant's home, so the clone is elsewhere, root's, and read by all.
FROM machine AS singleuser
WORKDIR /opt/kvqbook
COPY . .
RUN ./scripts/setup --hub
USER reader
CMD ["/opt/kvqbook/scripts/workshop/single-user"]

# What `docker build .` makes.
FROM cpu
