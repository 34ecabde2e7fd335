#!/usr/bin/env bash
# Shows what runs and what does not, with the reason and a next step. Ends with 0 if all is well, 1 if something is not, 3 without a cluster.
set -euo pipefail
command -v kubectl >/dev/null || {
  echo "check-status: needs kubectl on the PATH" >&2
  exit 2
}
get() { kubectl --namespace baler get "$@"; }

kubectl get namespace baler >/dev/null || {
  echo "check-status: no namespace \`baler\` is to be had; is \`kubectl config current-context\` the right one, is an overlay applied?" >&2
  exit 3
}
faults=0
fault() {
  faults=$((faults + 1))
  echo "  ✗ $1"
  echo "      $2"
}

echo "Secrets"
wanted=(stores-ca minio-tls mongodb-tls baler-store-logins minio-root)
workloads=$(get deployments,statefulsets --output name)
[[ "${workloads}" != *statefulset.apps/kafka* ]] || wanted+=(kafka-tls)
[[ "${workloads}" != *deployment.apps/grafana* ]] || wanted+=(grafana-admin)
[[ "${workloads}" != *deployment.apps/airflow* ]] || wanted+=(airflow-secrets)
secrets=$(get secrets --output name)
missing=0
for name in "${wanted[@]}"; do
  if ! grep -qx "secret/${name}" <<<"${secrets}"; then
    missing=1
    case "${name}" in
      *-tls | stores-ca) fault "Secret ${name} is missing" "k8s/certificates.sh makes it, or cert-manager: kubectl -n baler get certificates" ;;
      *) fault "Secret ${name} is missing" "the overlay \`kind\` has one for a laptop; k8s/README.md says which keys it needs" ;;
    esac
  fi
done
[[ "${missing}" == 1 ]] || echo "  ✓ all ${#wanted[@]} are there"

echo "Workloads"
rows=$(get deployments,statefulsets --output \
  'jsonpath={range .items[*]}{.kind}/{.metadata.name}|{.spec.replicas}|{.status.readyReplicas}{"\n"}{end}')
while IFS='|' read -r name replicas ready; do
  [[ -n "${name}" ]] || continue
  ready=${ready:-0}
  if [[ "${ready}" -ge "${replicas}" ]]; then
    echo "  ✓ ${name}: ${ready} of ${replicas} ready"
  else
    fault "${name}: ${ready} of ${replicas} ready" "kubectl -n baler describe ${name,,}"
  fi
done <<<"${rows}"

echo "Jobs"
rows=$(get jobs --output 'jsonpath={range .items[*]}{.metadata.name}|{.status.succeeded}|{.status.conditions[?(@.type=="Failed")].message}{"\n"}{end}')
while IFS='|' read -r name succeeded failure; do
  [[ -n "${name}" ]] || continue
  if [[ -n "${failure}" ]]; then
    fault "${name}: ${failure}" "kubectl -n baler logs job/${name}; the same Job again goes on where it stopped"
  elif [[ "${succeeded:-0}" -ge 1 ]]; then
    echo "  ✓ ${name}: done"
  else
    echo "  … ${name}: under way (kubectl -n baler logs --follow job/${name})"
  fi
done <<<"${rows}"

if rows=$(get balerjobs,balerstreams --output \
  'jsonpath={range .items[*]}{.kind}/{.metadata.name}|{.status.phase}|{.status.progress}|{.status.message}{"\n"}{end}' 2>/dev/null); then
  echo "Jobs and queries as resources"
  while IFS='|' read -r name phase progress message; do
    [[ -n "${name}" ]] || continue
    case "${phase}" in
      Failed | Invalid) fault "${name}: ${message}" "kubectl -n baler describe ${name,,}" ;;
      "") fault "${name} has no status" "kubectl -n baler logs deployment/baler-operator" ;;
      Complete | Suspended) echo "  ✓ ${name}: ${phase} ${progress}" ;;
      *) echo "  … ${name}: ${phase} ${progress}" ;;
    esac
  done <<<"${rows}"
fi

echo "Volumes"
rows=$(get persistentvolumeclaims --output 'jsonpath={range .items[*]}{.metadata.name}|{.status.phase}{"\n"}{end}')
pending=0
while IFS='|' read -r name phase; do
  [[ -n "${name}" && "${phase}" != Bound ]] || continue
  pending=1
  fault "${name} is ${phase:-not there yet}" "kubectl -n baler describe pvc ${name}: is there a StorageClass with room?"
done <<<"${rows}"
[[ "${pending}" == 1 ]] || echo "  ✓ all are bound"

if [[ "${faults}" -gt 0 ]]; then
  echo "${faults} things are not as they should be."
  exit 1
fi
echo "All is well."
