"""The language model as GGUF, plain or quantised by libllama.

In go the checkpoint's tensors and tokenizer, out comes a file that the runtime maps into memory.
"""
