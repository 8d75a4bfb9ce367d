# Stands in for the official image where no registry is reached: its user has another number in Debian's package.
FROM docker.io/library/redis:7-bookworm
USER root
RUN install --directory --owner 999 --group 999 /data
USER 999:999
