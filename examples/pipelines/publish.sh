#!/bin/sh
# publish.sh TMP: publishes app.tar.gz. It is the step that needs secrets, and
# the only one that gets any: a token for the registry and a key to sign with,
# for as long as upload.sh runs. TMP is the runner's folder for what a job
# leaves behind.
#
# Nothing is in the pipeline's variables, so the runner's service has nothing to
# mask: innate exec masks the output itself, before the runner sees it.
set -eu
cd "$(dirname "$0")"
exec innate exec \
	--secret "REGISTRY_TOKEN=${VAULT:-demo}/registry-token" \
	--file "$1/signing-key.pem=${VAULT:-demo}/signing-key" \
	-- ./upload.sh "$1/signing-key.pem"
