#!/usr/bin/env bash
# Brings the pipeline up on this machine: a kind cluster with three workers, the image, certificates, and an overlay. Each step looks first,
# so the script may run again at any time.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

readonly usage="usage: setup-pipeline.sh [kind|minimal]
  kind     the whole stack (default): wants 16 GB of memory and 30 GB of disk
  minimal  MinIO, a small sharded MongoDB and Baler: wants 8 GB"

overlay=${1:-kind}
case "${overlay}" in
  kind | minimal) ;;
  -h | --help)
    echo "${usage}"
    exit 0
    ;;
  *)
    echo "setup-pipeline: there is no overlay \`${overlay}\` for a laptop" >&2
    echo "${usage}" >&2
    exit 2
    ;;
esac

missing=()
for tool in docker kind kubectl openssl; do
  command -v "${tool}" >/dev/null || missing+=("${tool}")
done
if [[ ${#missing[@]} -gt 0 ]]; then
  echo "setup-pipeline: needs ${missing[*]} on the PATH" >&2
  echo "  docker   https://docs.docker.com/get-docker/" >&2
  echo "  kind     https://kind.sigs.k8s.io/" >&2
  echo "  kubectl  https://kubernetes.io/docs/tasks/tools/" >&2
  exit 2
fi
docker info >/dev/null 2>&1 || {
  echo "setup-pipeline: docker does not answer; start it, or join the group which may use it" >&2
  exit 3
}

say() { printf '\n== %s\n' "$*"; }

say "cluster"
clusters=$(kind get clusters 2>/dev/null)
if grep -qx baler <<<"${clusters}"; then
  echo "the kind cluster \`baler\` is there"
else
  kind create cluster --config kind.yaml --wait 120s
fi
# From here on this cluster, whatever another shell switches to.
KUBECONFIG=$(mktemp)
export KUBECONFIG
trap 'rm -f "${KUBECONFIG}"' EXIT
kind export kubeconfig --name baler --kubeconfig "${KUBECONFIG}" >/dev/null 2>&1

say "image"
revision=$(git -C .. rev-parse --short HEAD 2>/dev/null || echo unknown)
docker build --tag baler:0.1.0 --build-arg "REVISION=${revision}" ..
kind load docker-image baler:0.1.0 --name baler

say "certificates"
kubectl apply --server-side --filename base/namespace.yaml
./certificates.sh

say "overlay ${overlay}"
# Secrets of the overlay have passwords for a laptop, which are in this repository: nothing outside reaches a kind cluster.
kubectl apply --server-side --force-conflicts -k "overlays/${overlay}"

say "waiting until all is ready (images are pulled on the first run, which takes some minutes)"
workloads=$(kubectl --namespace baler get statefulsets,deployments --output name)
while read -r workload; do
  kubectl --namespace baler rollout status "${workload}" --timeout 20m
done <<<"${workloads}"
kubectl --namespace baler wait --for condition=complete --timeout 20m job/minio-init job/mongodb-init
if [[ "${overlay}" == kind ]]; then
  kubectl --namespace baler wait --for condition=complete --timeout 20m job/kafka-topics
fi

cat <<'END'

Ready. Next:
  k8s/generate-sample-data.sh   1 GiB of sample data into the bucket
  kubectl apply -k k8s/jobs/batch
  k8s/check-status.sh           what runs, and what to do where something does not
  k8s/port-forward.sh           Airflow, MinIO, Grafana and Prometheus on this machine
END
