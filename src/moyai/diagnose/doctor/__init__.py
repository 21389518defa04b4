"""``moyai doctor``: what a cloud can do for a cluster, what it lacks, and which spec fits it. Nothing is made or changed."""
