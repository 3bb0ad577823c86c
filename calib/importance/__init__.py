"""The importance matrix of a language model on what it will see: whole ST-LLM prompts, or text.

In go a checkpoint and prompts as embeddings, out come sums of squares of what enters each product, by position's class.
"""
