# Stillpoint as an image: one static program and the authorities it trusts object stores by.
#   docker build -t registry.example/stillpoint:0.1.0 .
FROM rust:1.95-alpine AS build
RUN apk add --no-cache musl-dev ca-certificates
WORKDIR /src
COPY . .
RUN cargo build --locked --release --bin stillpoint && strip target/release/stillpoint

FROM scratch
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /src/target/release/stillpoint /usr/local/bin/stillpoint
ENV PATH=/usr/local/bin
ENTRYPOINT ["stillpoint"]
