"""How fast a language model is run: what is left open is measured once a machine, build and model, and remembered.

In go what a user has decided and what a layer of the model's own file needs; out comes a `Pace`.
"""
