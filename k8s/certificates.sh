#!/usr/bin/env bash
# Makes the certificates of the stores (MinIO, MongoDB, Kafka) and of Baler's fleet as Secrets, each signed by an authority of this cluster's own, where
# cert-manager does not. What is there and sound stays, so it may run again.
set -euo pipefail

usage="usage: certificates.sh [--renew | --client FOLDER]
  --renew          make all but the authorities anew (the stores read theirs when they start again, Baler within two minutes)
  --client FOLDER  put an administrator's certificate for the fleet into files, for baler and for a browser; cert-manager's too"

readonly namespace=baler
readonly renew_days=30
renew='' client=''
case "${1:-}" in
  '') ;;
  --renew) renew=1 ;;
  --client)
    client=${2:-}
    [[ -n "${client}" ]] || {
      echo "certificates: --client wants a folder" >&2
      exit 2
    }
    ;;
  -h | --help)
    echo "${usage}"
    exit 0
    ;;
  *)
    echo "certificates: \`$1\` is not known" >&2
    echo "${usage}" >&2
    exit 2
    ;;
esac

for tool in kubectl openssl; do
  command -v "${tool}" >/dev/null || {
    echo "certificates: needs ${tool} on the PATH" >&2
    exit 2
  }
done

# Tells a Secret that is missing from a server that does not answer, or a lost connection would make a second authority.
has_secret() {
  [[ -n "$(kubectl --namespace "${namespace}" get secret "$1" --ignore-not-found --output name)" ]]
}

read_secret() { # NAME KEY
  kubectl --namespace "${namespace}" get secret "$1" --output "jsonpath={.data.${2//./\\.}}" | base64 --decode
}

if [[ -n "${client}" ]]; then
  has_secret baler-admin-tls || {
    echo "certificates: there is no Secret baler-admin-tls; run certificates.sh, or look at \`kubectl -n ${namespace} get certificates\`" >&2
    exit 1
  }
  umask 077
  mkdir -p "${client}"
  cd "${client}"
  folder=${PWD}
  for file in ca.crt tls.crt tls.key; do read_secret baler-admin-tls "${file}" >"${folder}/${file}"; done
  # The password is what browsers ask for when they import the file; the folder is what protects it.
  openssl pkcs12 -export -in tls.crt -inkey tls.key -name baler -passout pass:baler -out browser.p12
  cat <<END
certificates: an administrator's certificate is in ${folder}
  baler      export BALER_TLS_CA=${folder}/ca.crt BALER_TLS_CERT=${folder}/tls.crt BALER_TLS_KEY=${folder}/tls.key
  a browser  import browser.p12 (its password is \`baler\`) as your certificate, and ca.crt as an authority for web sites
END
  exit 0
fi

folder=$(mktemp -d)
trap 'rm -rf "${folder}"' EXIT
cd "${folder}"

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

authority() { # SECRET NAME
  mkdir "$1"
  if has_secret "$1"; then
    for file in tls.key tls.crt; do read_secret "$1" "${file}" >"$1/${file}"; done
    return
  fi
  key "$1/tls.key"
  openssl req -x509 -new -key "$1/tls.key" -days 3650 -subj "/CN=$2" -out "$1/tls.crt" \
    -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign,cRLSign
  cp "$1/tls.crt" "$1/ca.crt"
  store "$1" "$1/tls.key" "$1/tls.crt" "$1/ca.crt"
}

is_sound() { # NAME AUTHORITY: whether the Secret is there, of this authority, and does not end soon
  has_secret "$1" || return 1
  read_secret "$1" tls.crt >is.crt
  openssl verify -CAfile "$2/tls.crt" is.crt >/dev/null 2>&1 && openssl x509 -in is.crt -noout -checkend $((renew_days * 86400)) >/dev/null
}

certificate() { # NAME AUTHORITY SUBJECT USAGE DNS-NAMES [combined]
  if [[ -z "${renew}" ]] && is_sound "$1" "$2"; then
    echo "certificates: Secret $1 is there"
    return
  fi
  key tls.key
  openssl req -new -key tls.key -subj "$3" -out request
  printf 'basicConstraints=CA:FALSE\nkeyUsage=digitalSignature\nextendedKeyUsage=%s\nsubjectAltName=%s\n' "$4" "$5" >extensions
  openssl x509 -req -in request -CA "$2/tls.crt" -CAkey "$2/tls.key" -CAcreateserial -days 825 -extfile extensions -out tls.crt 2>/dev/null
  cp "$2/tls.crt" ca.crt
  local files=(tls.key tls.crt ca.crt)
  if [[ "${6:-}" == combined ]]; then
    cat tls.key tls.crt >tls-combined.pem
    files+=(tls-combined.pem)
  fi
  store "$1" "${files[@]}"
}

authority stores-ca baler-stores
certificate minio-tls stores-ca /CN=minio serverAuth "DNS:minio.${namespace}.svc,DNS:localhost"
# MongoDB takes whoever has its organisation and unit for a member of the cluster.
members="DNS:mongodb-mongos.${namespace}.svc,DNS:localhost"
for set in config shard-0 shard-1 shard-2; do
  members+=",DNS:*.mongodb-${set}.${namespace}.svc"
done
certificate mongodb-tls stores-ca /O=baler/OU=mongodb/CN=mongodb serverAuth,clientAuth "${members}" combined
certificate kafka-tls stores-ca /CN=kafka serverAuth,clientAuth \
  "DNS:kafka.${namespace}.svc,DNS:*.kafka.${namespace}.svc,DNS:localhost" combined

# Another authority: whom the stores' signs is nobody in the fleet. base/access.yaml says what each of these names may do.
authority baler-ca baler-fleet
certificate baler-member-tls baler-ca /CN=member serverAuth,clientAuth "DNS:fleet.${namespace}.svc,DNS:metrics.${namespace}.svc,\
DNS:baler-scheduler.${namespace}.svc,DNS:baler-scheduler-registration.${namespace}.svc,DNS:localhost"
certificate baler-driver-tls baler-ca /CN=driver serverAuth,clientAuth "DNS:driver.${namespace}.svc,DNS:metrics.${namespace}.svc,DNS:localhost"
certificate baler-prometheus-tls baler-ca /CN=prometheus clientAuth "DNS:prometheus.${namespace}.svc"
certificate baler-admin-tls baler-ca /CN=admin clientAuth "DNS:admin.${namespace}.svc"
