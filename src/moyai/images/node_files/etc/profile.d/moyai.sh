# On a control plane root's kubectl finds its cluster.
if [ -r /etc/kubernetes/admin.conf ] && [ -z "${KUBECONFIG:-}" ]; then export KUBECONFIG=/etc/kubernetes/admin.conf; fi
