"""Where inference starts: initial values of latent sites and params."""
