#!/usr/bin/env bash
# Fills the bucket with sample data (JSON events in gzip objects), or the topic: replaces the Job of the last time, waits, and shows what was made.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

usage="usage: generate-sample-data.sh [--size 1GiB] [--feed] [--no-wait]
  --size     raw bytes in all, before compression
  --feed     into the topic \`events\`, 20,000 records a second, in place of the bucket
  --no-wait  do not wait for the end"

size=1GiB name=generate is_waiting=1
while [[ $# -gt 0 ]]; do
  case "$1" in
    --size)
      size=${2:-}
      shift
      ;;
    --feed) name=generate-feed ;;
    --no-wait) is_waiting= ;;
    -h | --help)
      echo "${usage}"
      exit 0
      ;;
    *)
      echo "generate-sample-data: \`$1\` is not known" >&2
      echo "${usage}" >&2
      exit 2
      ;;
  esac
  shift
done
[[ "${size}" =~ ^[0-9]+(KiB|MiB|GiB|TiB)$ ]] || {
  echo "generate-sample-data: \`${size}\` is no size; write 500MiB or 2TiB" >&2
  exit 2
}
command -v kubectl >/dev/null || {
  echo "generate-sample-data: needs kubectl on the PATH" >&2
  exit 2
}
kubectl get namespace baler >/dev/null || {
  echo "generate-sample-data: no namespace \`baler\` is to be had; apply an overlay first" >&2
  exit 3
}

# A Job cannot be changed, and each run is a new one.
kubectl --namespace baler delete job "baler-${name}" --ignore-not-found --wait
manifest=$(kubectl kustomize "jobs/${name}")
kubectl apply --server-side --filename - <<<"${manifest//--size=1GiB/--size=${size}}"
[[ -n "${is_waiting}" ]] || exit 0

echo "making ${size} of sample data …"
# What waits for success alone would wait for ever after a failure.
until states=$(kubectl --namespace baler get job "baler-${name}" --output 'jsonpath={.status.conditions[?(@.status=="True")].type}') &&
  [[ "${states}" == *Complete* || "${states}" == *Failed* ]]; do
  sleep 2
done
kubectl --namespace baler logs "job/baler-${name}"
[[ "${states}" == *Complete* ]] || {
  echo "generate-sample-data: the Job failed; its log is above" >&2
  exit 1
}
