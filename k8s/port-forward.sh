#!/usr/bin/env bash
# Brings the web pages of the pipeline to this machine, until Ctrl-C. Services which an overlay does not have are left out.
set -euo pipefail
command -v kubectl >/dev/null || {
  echo "port-forward: needs kubectl on the PATH" >&2
  exit 2
}
services=$(kubectl --namespace baler get services --output 'jsonpath={range .items[*]}{.metadata.name}{"\n"}{end}') || {
  echo "port-forward: the cluster does not answer; is \`kubectl config current-context\` the right one?" >&2
  exit 3
}

forwards=()
# Ends every forward, also where one of them has ended by itself.
trap '[[ ${#forwards[@]} -eq 0 ]] || kill "${forwards[@]}" 2>/dev/null || true' EXIT

forward() { # SERVICE PORT TEXT
  grep -qx "$1" <<<"${services}" || return 0
  kubectl --namespace baler port-forward "service/$1" "$2:$2" >/dev/null &
  forwards+=("$!")
  printf '  %-18s %s\n' "$1" "$3"
}

forward airflow 8080 http://localhost:8080
forward minio 9001 https://localhost:9001
forward grafana 3000 http://localhost:3000
forward prometheus 9090 http://localhost:9090
forward baler-scheduler 50050 "https://localhost:50050, the dashboard; grpc+tls://localhost:50050 for Flight SQL; dfs://localhost:50050 for baler jobs cancel"
if [[ ${#forwards[@]} -eq 0 ]]; then
  echo "port-forward: there are no services in the namespace baler; apply an overlay first" >&2
  exit 1
fi
page=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)/dashboard.html
echo "All of them on one page: file://${page}"
echo "The scheduler wants a certificate (k8s/certificates.sh --client FOLDER makes files for a browser and for baler) or a token."
if token=$(kubectl --namespace baler get secret baler-token --output 'jsonpath={.data.token}' 2>/dev/null) && [[ -n "${token}" ]]; then
  echo "A token which may look, for the page and as the password of Flight SQL: $(base64 --decode <<<"${token}")"
fi
echo "Ctrl-C ends it."
wait -n
echo "port-forward: a connection has ended; start the script again" >&2
exit 3
