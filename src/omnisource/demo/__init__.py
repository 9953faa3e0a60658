"""A miniature world, filmed into real files: input for the demo, the tests and the `world` track of the evidence.

Eight actions of small people; a target dataset with few places and people, and a web with many, wrong labels,
off-topic files, copies and damage. It ships no media: everything is drawn.
"""

from omnisource.demo.plan import CLASSES, OFF_TOPIC, WorldSize
from omnisource.demo.world import SIZES, World, make_world

__all__ = ["CLASSES", "OFF_TOPIC", "SIZES", "World", "WorldSize", "make_world"]
