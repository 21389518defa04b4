"""How moyai grows: clusters and Services by the hundred against a cloud and a Kubernetes in memory, in time that jumps.

``python -m tests.simulate`` prints what each size costs, and fails where the calls for one object grow with their number.
"""
