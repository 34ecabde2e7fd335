# One image for scheduler, executor and driver: `baler` is its entry point, the first argument is the command.
#
#   docker build -t baler .                                    compiles Baler and makes the image
#   docker build -t baler --target prebuilt .                  the same image around a binary `./baler` that exists already
#   docker run --rm --no-healthcheck baler demo
# The same files give the same image, byte for byte, where the base images are named by their digests and times are fixed:
#   SOURCE_DATE_EPOCH=$(git log -1 --format=%ct) docker buildx build --build-arg BASE_IMAGE=…@sha256:… --build-arg BUILD_IMAGE=…@sha256:… \
#     --output type=image,name=baler,rewrite-timestamp=true .
#
# BASE_IMAGE needs glibc 2.36 or newer, libgcc and certificates of public authorities; nothing is run in it while the image is made.
ARG BASE_IMAGE=gcr.io/distroless/cc-debian12:nonroot
ARG BUILD_IMAGE=docker.io/library/rust:1.95-bookworm

# All of the image but the binary. It comes first, so that the target `prebuilt` needs no stage that compiles.
FROM ${BASE_IMAGE} AS runtime
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="baler" \
      org.opencontainers.image.description="Compresses S3 objects and Kafka records into verified MongoDB documents" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.licenses="MIT"
COPY sql /usr/share/baler/sql
COPY LICENSE /usr/share/baler/LICENSE
# Nothing but this volume is written to, so the root file system may be read-only.
WORKDIR /tmp
VOLUME ["/tmp"]
# By number, so that Kubernetes can see that it is not root.
USER 65532:65532
EXPOSE 50050 50051 50052 50053
# A scheduler's; an executor sets BALER_HEALTH_URL=http://127.0.0.1:50053/healthz. Jobs run with --no-healthcheck.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 CMD ["/usr/local/bin/baler", "health"]
ENTRYPOINT ["/usr/local/bin/baler"]
CMD ["--help"]

FROM runtime AS prebuilt
COPY --chmod=0755 baler /usr/local/bin/baler

FROM ${BUILD_IMAGE} AS build
WORKDIR /src
# The dependencies first, over empty sources: their layer stays as long as the manifests do.
COPY Cargo.toml Cargo.lock ./
COPY engine/Cargo.toml engine/Cargo.toml
COPY plans/Cargo.toml plans/Cargo.toml
COPY tests/Cargo.toml tests/Cargo.toml
COPY benches/Cargo.toml benches/Cargo.toml
COPY benches/zlib-reference/Cargo.toml benches/zlib-reference/Cargo.toml
RUN mkdir -p engine/src plans/src tests/src tests/it benches/src benches/benches benches/zlib-reference/src \
 && touch engine/src/lib.rs plans/src/lib.rs tests/src/lib.rs tests/it/main.rs benches/src/lib.rs benches/benches/stages.rs \
          benches/zlib-reference/src/lib.rs \
 && echo 'fn main() {}' > engine/src/main.rs \
 && cargo build --release --locked -p baler
COPY sql sql
COPY engine engine
# The new sources may be older than what was built from the empty ones; cargo goes by time.
RUN find engine/src -name '*.rs' -exec touch {} + \
 && cargo build --release --locked -p baler \
 && strip --strip-debug target/release/baler

FROM runtime AS image
COPY --from=build --chmod=0755 /src/target/release/baler /usr/local/bin/baler
