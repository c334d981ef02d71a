"""Large axes evaluated a block at a time, and over several devices: a transformation of jaxprs."""
