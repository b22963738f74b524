FROM rust:1.95-bookworm AS build
WORKDIR /source
COPY . .
# Linked statically, glibc included: the final image holds nothing else. Cargo goes by the age of files, and the cache may
# hold a build of newer ones than these.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/source/target \
    touch src/lib.rs src/main.rs && RUSTFLAGS="-C target-feature=+crt-static" \
    cargo install --locked --path . --target "$(rustc --print host-tuple)" --root /out

# `docker build --target worker`: the native worker. It has no shell: other images take the file, or bring their programs.
FROM scratch AS worker
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /out/bin/crewjob /crewjob
USER 65532:65532
ENTRYPOINT ["/crewjob", "worker"]

FROM scratch
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /out/bin/crewjob /crewjob
# Ten thousand jobs are listed at once when it starts; what that took goes back to the system.
ENV MALLOC_ARENA_MAX=1 MALLOC_MMAP_THRESHOLD_=65536 MALLOC_TRIM_THRESHOLD_=65536
USER 65532:65532
ENTRYPOINT ["/crewjob"]
