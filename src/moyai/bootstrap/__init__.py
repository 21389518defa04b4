"""What a machine is told so that it becomes a node: user data, kubeadm configuration, certificates."""
