"""The Gaussian mixture job: fit, serve, explore; with figures and a report."""
