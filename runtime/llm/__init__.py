"""The language model on libllama: vocabulary, prompt, injected embeddings, sampling.

In go token ids and embeddings, out come logits, ids and text.
"""
