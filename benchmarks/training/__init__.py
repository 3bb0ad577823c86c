"""Training of the small ST-LLM that is included, on the generated world.

In goes a data set in REA's layout, out comes a checkpoint as the trainer of the released model saves it.
"""
