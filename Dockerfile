# The program with what its forward passes need: docker build -t mergekit .
#   docker run --rm -v "$PWD:/work" -w /work mergekit merge recipe.yml out
# Caches (downloads, scores, compiled graphs) are below /cache; mount a volume there to keep them.
FROM golang:1.26-bookworm AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG VERSION=
RUN make build VERSION="$VERSION" && bin/mergekit man /man --quiet

FROM debian:bookworm-slim
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates && rm -rf /var/lib/apt/lists/*
COPY --from=build /src/bin/ /usr/local/bin/
COPY --from=build /man/ /usr/local/share/man/man1/
ENV MERGEKIT_CACHE=/cache/mergekit MERGEKIT_COMPILE_CACHE=/cache/compile HF_HOME=/cache/huggingface
VOLUME /cache
ENTRYPOINT ["mergekit"]
CMD ["--help"]
