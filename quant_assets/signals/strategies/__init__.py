"""One file per strategy; every concrete `Strategy` in here is an asset `signals/<name>`.

Belongs here: strategies, and nothing that is not one.
"""
