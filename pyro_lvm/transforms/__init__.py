"""Bijections that zuko and Pyro lack or get wrong, one file each; none is needed yet."""
