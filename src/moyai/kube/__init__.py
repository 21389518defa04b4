"""Kubernetes: client, informer, work queue, leader election, events. The only place that imports lightkube."""
