"""Kill things at random points, and look for what is left: python -m tests.crash 200.

``victim`` is a script that makes, leaves and forgets all sorts of things. ``hosts`` runs it in a plain Python or in a
notebook kernel, ``rounds`` has the ways to die, ``oracle`` looks for what is left, without nslab.
"""
