"""What a posterior is asked: discrete sites, densities, predictions."""
