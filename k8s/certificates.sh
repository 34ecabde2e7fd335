#!/usr/bin/env bash
# Makes the certificates of MinIO, MongoDB and Kafka as Secrets, signed by an authority of this cluster's own, where cert-manager does not.
# What is there already stays, so it may run again; `--renew` makes all but the authority anew (pods read them when they start again).
set -euo pipefail

readonly namespace=baler
renew=
[[ "${1:-}" == --renew ]] && renew=1

for tool in kubectl openssl; do
  command -v "${tool}" >/dev/null || {
    echo "certificates: needs ${tool} on the PATH" >&2
    exit 2
  }
done

folder=$(mktemp -d)
trap 'rm -rf "${folder}"' EXIT
cd "${folder}"

# Tells a Secret that is missing from a server that does not answer, or a lost connection would make a second authority.
has_secret() {
  [[ -n "$(kubectl --namespace "${namespace}" get secret "$1" --ignore-not-found --output name)" ]]
}

store() { # NAME FILES…: makes or replaces a Secret
  local name=$1 arguments=() file
  shift
  for file in "$@"; do arguments+=("--from-file=${file}"); done
  kubectl --namespace "${namespace}" create secret generic "${name}" "${arguments[@]}" --dry-run=client --output yaml |
    kubectl apply --server-side --force-conflicts --filename - >/dev/null
  echo "certificates: made Secret ${name}"
}

key() {
  openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1" 2>/dev/null
}

kubectl get namespace "${namespace}" >/dev/null

if has_secret stores-ca; then
  for name in tls.key tls.crt; do
    kubectl --namespace "${namespace}" get secret stores-ca --output "jsonpath={.data.${name/./\\.}}" | base64 --decode >"ca-${name}"
  done
else
  key ca-tls.key
  openssl req -x509 -new -key ca-tls.key -days 3650 -subj /CN=baler-stores -out ca-tls.crt \
    -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign,cRLSign
  cp ca-tls.key tls.key
  cp ca-tls.crt tls.crt
  cp ca-tls.crt ca.crt
  store stores-ca tls.key tls.crt ca.crt
fi

certificate() { # NAME SUBJECT USAGE DNS-NAMES
  if [[ -z "${renew}" ]] && has_secret "$1"; then
    echo "certificates: Secret $1 is there"
    return
  fi
  key tls.key
  openssl req -new -key tls.key -subj "$2" -out request
  printf 'basicConstraints=CA:FALSE\nkeyUsage=digitalSignature\nextendedKeyUsage=%s\nsubjectAltName=%s\n' "$3" "$4" >extensions
  openssl x509 -req -in request -CA ca-tls.crt -CAkey ca-tls.key -CAcreateserial -days 825 -extfile extensions -out tls.crt 2>/dev/null
  cat tls.key tls.crt >tls-combined.pem
  cp ca-tls.crt ca.crt
  store "$1" tls.key tls.crt tls-combined.pem ca.crt
}

certificate minio-tls /CN=minio serverAuth "DNS:minio.${namespace}.svc,DNS:localhost"
# MongoDB takes whoever has its organisation and unit for a member of the cluster.
members="DNS:mongodb-mongos.${namespace}.svc,DNS:localhost"
for set in config shard-0 shard-1 shard-2; do
  members+=",DNS:*.mongodb-${set}.${namespace}.svc"
done
certificate mongodb-tls /O=baler/OU=mongodb/CN=mongodb serverAuth,clientAuth "${members}"
certificate kafka-tls /CN=kafka serverAuth,clientAuth "DNS:kafka.${namespace}.svc,DNS:*.kafka.${namespace}.svc,DNS:localhost"
