"""TensorRT engines of the encoders: built on the device, or ahead of time where there is no GPU."""
