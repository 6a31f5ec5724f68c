#!/bin/sh
# upload.sh KEY: signs app.tar.gz with KEY and sends it to REGISTRY_URL with
# REGISTRY_TOKEN. It knows nothing of Innate. The token goes to curl through a
# pipe: on its command line every user of the machine could read it.
set -eu
openssl dgst -sha256 -sign "$1" -out app.tar.gz.sig app.tar.gz
for file in app.tar.gz app.tar.gz.sig; do
	printf 'Authorization: Bearer %s\n' "$REGISTRY_TOKEN" |
		curl --silent --show-error --fail --header @- --upload-file "$file" "$REGISTRY_URL/$file"
done
