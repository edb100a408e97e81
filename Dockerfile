# syntax=docker/dockerfile:1
# Two targets, "api" and "consumer", from one build. docker-compose.yml builds both.

# The version is rust-toolchain.toml's; a test holds them equal.
FROM rust:1.95.0-slim-bookworm AS build
RUN apt-get update \
 && apt-get install --yes --no-install-recommends g++ make perl \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
# What `--version` tells; there is no .git here. docker build --build-arg LEADS_COMMIT=$(git rev-parse --short=12 HEAD) .
ARG LEADS_COMMIT
ARG LEADS_COMMIT_DATE
# Registry and compiled dependencies live in the builder's cache, so that a change of the code
# compiles that code alone. The cache is not part of the image: copy the binaries out of it.
# RUSTUP_TOOLCHAIN: the image's own compiler, without the lints that rust-toolchain.toml asks for.
RUN --mount=type=cache,target=/usr/local/cargo/registry,sharing=locked \
    --mount=type=cache,target=/src/target,sharing=locked \
    RUSTUP_TOOLCHAIN=$RUST_VERSION cargo build --release --locked --package leads-api --package leads-consumer \
 && mkdir /out \
 && cp target/release/leads-api target/release/leads-consumer /out/

FROM debian:bookworm-slim AS runtime
LABEL org.opencontainers.image.title=leads \
      org.opencontainers.image.description="An event-sourced lead service: HTTP to Kafka to PostgreSQL" \
      org.opencontainers.image.licenses=Apache-2.0
# ca-certificates: TLS to Kafka and PostgreSQL verifies by default.
RUN apt-get update \
 && apt-get install --yes --no-install-recommends ca-certificates \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin leads
# There is no curl in the image; bash can open a socket.
COPY --chmod=755 <<'READY' /usr/local/bin/ready
#!/bin/bash
# ready PORT: does http://127.0.0.1:PORT/readyz answer 200?
exec 3<>"/dev/tcp/127.0.0.1/$1" || exit 1
printf 'GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n' >&3
read -r -t 4 _ status _ <&3 && [ "$status" = 200 ]
READY
USER 10001

FROM runtime AS consumer
COPY --from=build /out/leads-consumer /usr/local/bin/
ENV METRICS_LISTEN=0.0.0.0:9465
EXPOSE 9465
HEALTHCHECK --interval=5s --timeout=5s --start-period=60s CMD ["ready", "9465"]
ENTRYPOINT ["leads-consumer"]
CMD ["run"]

FROM runtime AS api
COPY --from=build /out/leads-api /usr/local/bin/
ENV API_LISTEN=0.0.0.0:8080 METRICS_LISTEN=0.0.0.0:9464
EXPOSE 8080 9464
HEALTHCHECK --interval=5s --timeout=5s --start-period=60s CMD ["ready", "8080"]
ENTRYPOINT ["leads-api"]
CMD ["serve"]
