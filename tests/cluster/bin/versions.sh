# shellcheck shell=bash
# The other versions stand in the go.mod files.
kubernetes_version=1.36.3
helm_version=4.3.1
cni_plugins_version=1.9.1
