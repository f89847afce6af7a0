"""The battery: ways out of a container, or across to what others have, tried from inside.

``inside`` has the ways and runs within a container, as a plain program of the standard library; ``python -m tests.battery``
(`make battery`) tries them all in a hardened container and in a plain one, side by side, and prints the table.
Nothing is written: what would be is opened only, and calls that would do something are made so that they cannot.
"""
