"""Why something does not run: ``gather`` reads the facts, ``placement`` and ``pods`` judge them without asking anybody.

Always holds: nothing is changed, in the cluster or in the cloud; an answer is the API's own word or a rule written here.
"""
