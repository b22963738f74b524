# shellcheck shell=bash
# etcd and the API server: all of a control plane, the first two components of a cluster.

run_etcd() {
  local client=http://127.0.0.1:$etcd_port peer=http://127.0.0.1:$etcd_peer_port
  exec "$bin_dir/etcd" --data-dir "$state_dir/etcd" --unsafe-no-fsync --log-level warn \
    --quota-backend-bytes 8589934592 \
    --listen-client-urls "$client" --advertise-client-urls "$client" \
    --listen-peer-urls "$peer" --initial-advertise-peer-urls "$peer" --initial-cluster "default=$peer"
}

run_apiserver() {
  exec "$bin_dir/kube-apiserver" --etcd-servers "http://127.0.0.1:$etcd_port" \
    --bind-address "$api_bind_address" --advertise-address "$api_address" --secure-port "$api_port" \
    --endpoint-reconciler-type "$endpoint_reconciler" \
    --cert-dir "$state_dir/pki" --token-auth-file "$state_dir/pki/tokens.csv" \
    --authorization-mode Node,RBAC --allow-privileged \
    --service-account-issuer https://kubernetes.default.svc \
    --service-account-key-file "$state_dir/pki/service-accounts.key" \
    --service-account-signing-key-file "$state_dir/pki/service-accounts.key" \
    --service-cluster-ip-range 10.96.0.0/16 --kubelet-preferred-address-types InternalIP \
    --audit-policy-file "$state_dir/audit-policy.yaml" --audit-log-path "$state_dir/audit.log" \
    --shutdown-watch-termination-grace-period 1s --profiling=false
}

write_control_plane_files() {
  local token
  token=$(openssl rand -hex 16)
  mkdir -p "$state_dir/pki"
  openssl ecparam -name prime256v1 -genkey -noout -out "$state_dir/pki/service-accounts.key"
  (umask 077 && printf '%s,admin,admin,"system:masters"\n' "$token" >"$state_dir/pki/tokens.csv")
  write_audit_policy
  write_kubeconfig "$token"
}

# Only what service accounts ask for is logged: which verbs a chart's roles have to grant.
write_audit_policy() {
  cat >"$state_dir/audit-policy.yaml" <<'YAML'
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
  - level: None
    userGroups: [system:serviceaccounts:kube-system]
  - level: Metadata
    userGroups: [system:serviceaccounts]
  - level: None
YAML
}

# The API server writes its certificate on its first start: nothing reads this file before.
write_kubeconfig() {
  (umask 077 && cat >"$state_dir/kubeconfig") <<YAML
apiVersion: v1
kind: Config
current-context: "$name"
contexts:
  - name: "$name"
    context: { cluster: "$name", user: admin }
clusters:
  - name: "$name"
    cluster:
      server: https://$api_address:$api_port
      certificate-authority: $state_dir/pki/apiserver.crt
users:
  - name: admin
    user: { token: $1 }
YAML
}

api_is_ready() { "$bin_dir/kubectl" --kubeconfig "$state_dir/kubeconfig" get --raw /readyz; }
