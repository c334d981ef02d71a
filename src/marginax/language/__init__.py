"""The modelling language: one handler stack, the primitives, the handlers. It fits in a head."""
