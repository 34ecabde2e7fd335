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
wanted=(stores-ca minio-tls mongodb-tls baler-ca baler-member-tls baler-driver-tls baler-store-logins minio-root)
workloads=$(get deployments,statefulsets --output name)
[[ "${workloads}" != *statefulset.apps/kafka* ]] || wanted+=(kafka-tls)
[[ "${workloads}" != *deployment.apps/grafana* ]] || wanted+=(grafana-admin)
[[ "${workloads}" != *statefulset.apps/prometheus* ]] || wanted+=(baler-prometheus-tls)
[[ "${workloads}" != *deployment.apps/airflow* ]] || wanted+=(airflow-secrets)
secrets=$(get secrets --output name)
missing=0
for name in "${wanted[@]}"; do
  if ! grep -qx "secret/${name}" <<<"${secrets}"; then
    missing=1
    case "${name}" in
      *-tls | *-ca) fault "Secret ${name} is missing" "k8s/certificates.sh makes it, or cert-manager: kubectl -n baler get certificates" ;;
      *) fault "Secret ${name} is missing" "the overlay \`kind\` has one for a laptop; k8s/README.md says which keys it needs" ;;
    esac
  fi
done
[[ "${missing}" == 1 ]] || echo "  ✓ all ${#wanted[@]} are there"

echo "Certificates"
certificate() { # SECRET KEY
  get secret "$1" --output "jsonpath={.data.${2//./\\.}}" | base64 --decode
}
if command -v openssl >/dev/null; then
  folder=$(mktemp -d)
  trap 'rm -rf "${folder}"' EXIT
  sound=0 before=${faults}
  for name in "${wanted[@]}"; do
    [[ "${name}" == *-tls ]] || continue
    authority=stores-ca
    [[ "${name}" != baler-* ]] || authority=baler-ca
    # What is missing is told above.
    if ! grep -qx "secret/${name}" <<<"${secrets}" || ! grep -qx "secret/${authority}" <<<"${secrets}"; then continue; fi
    certificate "${authority}" tls.crt >"${folder}/ca.crt"
    certificate "${name}" tls.crt >"${folder}/tls.crt"
    certificate "${name}" ca.crt >"${folder}/believed.crt"
    remedy="k8s/certificates.sh makes it anew, or cert-manager: kubectl -n baler describe certificates"
    if ! openssl x509 -in "${folder}/tls.crt" -noout -checkend 0 >/dev/null 2>&1; then
      fault "the certificate in Secret ${name} has ended, or is none" "${remedy}"
    elif ! openssl verify -CAfile "${folder}/ca.crt" "${folder}/tls.crt" >/dev/null 2>&1 ||
      ! openssl verify -CAfile "${folder}/believed.crt" "${folder}/ca.crt" >/dev/null 2>&1; then
      fault "the certificate in Secret ${name} is of another authority than Secret ${authority}" "${remedy}"
    elif ! openssl x509 -in "${folder}/tls.crt" -noout -checkend $((14 * 86400)) >/dev/null; then
      fault "the certificate in Secret ${name} ends within two weeks" "${remedy}"
    else
      sound=$((sound + 1))
    fi
  done
  [[ "${faults}" != "${before}" ]] || echo "  ✓ ${sound} are sound"
else
  echo "  … not looked at: there is no openssl on the PATH"
fi

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
