"""The work in the background: each step makes one change in the cloud below, after a look whether it is made already."""
