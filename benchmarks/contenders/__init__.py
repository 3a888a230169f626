"""The same variational autoencoder five times: ours, stock Pyro, hand-written PyTorch, NumPyro, Pythae."""
