# Stands in for MinIO's own client image where no registry is reached.
FROM docker.io/library/debian:bookworm-slim
COPY mc /usr/bin/mc
ENTRYPOINT ["mc"]
