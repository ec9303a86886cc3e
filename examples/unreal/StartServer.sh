#!/bin/bash
# As many Unreal servers are started today. Do not copy it: README.md says what is wrong with each part.

printenv

terminate() {
  echo "SIGTERM received"
  kill -SIGTERM $$
}
trap terminate SIGTERM

/home/ue/LinuxServer/ArenaServer.sh -log

echo "the server has ended: stopping the deployment"
curl --silent -X DELETE -H "authorization: $ARBITRIUM_DELETE_TOKEN" "$ARBITRIUM_DELETE_URL"
sleep infinity
