"""Recipes: one paper a file, each reads as the paper's list of layers."""

from npflow.models.glow import glow

__all__ = ["glow"]
