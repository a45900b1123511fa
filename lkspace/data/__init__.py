"""Images and labels from one front door, `load(spec)`: decoded once, cached, memory-mapped, the same every time."""

from lkspace.data.cache import cache_folder
from lkspace.data.imageset import ImageSet, Split
from lkspace.data.load import Description, absolute, describe, load

__all__ = ["Description", "ImageSet", "Split", "absolute", "cache_folder", "describe", "load"]
