"""Why something does not run. Reads the cluster and the cloud, changes neither."""
