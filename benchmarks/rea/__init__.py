"""The REA data set: reader, subsets, runs that go on where they stopped, results.

In go the release's JSON file and a bundle, out come answers on disk, one JSON line each.
"""
