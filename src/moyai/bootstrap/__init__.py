"""The input that turns a machine into a node: user data, kubeadm configuration, certificates."""
