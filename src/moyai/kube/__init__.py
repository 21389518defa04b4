"""Kubernetes: two clients, objects, informer, work queue, leader election, events. The only room that imports lightkube.

``quick`` is synchronous and imports in milliseconds: for commands, outside of the cluster. ``watching`` is asynchronous and
watches: for controllers, inside of it. Both speak of ``resources``, and of ``errors`` when they are refused.
"""
