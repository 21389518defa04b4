"""What is tried in the virtual machine: run there by its own Python, with the standard library and moyai's own source.

    python3 -m inside outer    the host's part: settings, the cloud's scope and namespaces, and what is left afterwards
    … daemon                   in the scope: the control group root (as ``localcloud.launch`` does)
    … cloud                    PID 1 of the cloud's namespaces: bridges, machines, Kubernetes

Reads ``/share/plan.json``; writes a line to ``/share/results.jsonl`` for each finding: what, whether, how long, detail. In the
virtual machine this folder is a package of its own, so its modules import each other relatively.
"""
