"""What does not depend on a question, computed once: features by the content that they are made of.

In go scenes and frames, out come the same arrays as from the stages, from memory or from disk where they are known.
"""
