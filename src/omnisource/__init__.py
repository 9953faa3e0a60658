"""OmniSource: train video recognisers with the help of the web."""

__version__ = "0.1.0"
