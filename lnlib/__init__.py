"""Tools shared by the studies of "Layer Normalization, Put to the Test"."""

__version__ = "0.1.0"
