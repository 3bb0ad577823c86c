"""TensorRT engines from the bundle's graphs: targets, profiles, builder, and a check without a GPU.

In goes a bundle with graphs, out come engines with a sidecar that says what each of them takes.
"""
