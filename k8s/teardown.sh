#!/usr/bin/env bash
# Removes what setup-pipeline.sh made: the kind cluster `baler` with all data in it. Images in docker stay.
set -euo pipefail
command -v kind >/dev/null || {
  echo "teardown: needs kind on the PATH" >&2
  exit 2
}
clusters=$(kind get clusters 2>/dev/null)
if ! grep -qx baler <<<"${clusters}"; then
  echo "teardown: there is no kind cluster \`baler\`"
  exit 0
fi
if [[ "${1:-}" != --yes ]]; then
  read -r -p "Remove the kind cluster \`baler\` and all its data? [y/N] " answer
  [[ "${answer}" == y || "${answer}" == Y ]] || {
    echo "teardown: nothing was removed"
    exit 1
  }
fi
kind delete cluster --name baler
