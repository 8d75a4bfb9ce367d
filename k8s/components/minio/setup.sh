#!/bin/sh
# Makes the bucket, and a user who may do there what omnifleet does and nothing else. Safe to run again.
set -eu
until mc alias set --quiet fleet "$MINIO_ENDPOINT" "$MINIO_ROOT_USER" "$MINIO_ROOT_PASSWORD" >/dev/null; do
  sleep 1
done
mc mb --ignore-existing fleet/omnifleet
mc admin policy create fleet omnifleet /setup/policy.json
mc admin user add fleet "$AWS_ACCESS_KEY_ID" "$AWS_SECRET_ACCESS_KEY"
# To attach what is attached already is an error to mc.
if ! mc admin user info --json fleet "$AWS_ACCESS_KEY_ID" | grep -q '"policyName":"omnifleet"'; then
  mc admin policy attach fleet omnifleet --user "$AWS_ACCESS_KEY_ID"
fi
