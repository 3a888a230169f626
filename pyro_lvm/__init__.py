"""Latent variable models as probabilistic programs: Pyro model/guide pairs, trained by SVI, held against exact answers."""
