"""Point clouds from files, a module a format: each reads points and colours as they are stored.

`points` beside this package finds the format, and makes of what is stored what the model takes.
"""
