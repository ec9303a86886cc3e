#!/bin/sh
# The vendor's own documented way for a game to stop itself: one curl, with the injected URL and token.
trap 'echo "heard SIGTERM"; exit 0' TERM
echo "ready"
curl --silent --show-error --output /dev/null --write-out 'status %{http_code}\n' \
  --request DELETE --header "authorization: ${ARBITRIUM_DELETE_TOKEN}" "${ARBITRIUM_DELETE_URL}"
while :; do sleep 0.05; done
