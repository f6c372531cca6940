"""Shards of a log of the cascade world, in a module that a spawned worker can import."""

from multislot_rerank.cascade_world import CascadeWorld

WORLD = CascadeWorld.random(items=5, slots=3, damping=0.6, seed=0)


def shard(seed, records=3000):
    log = WORLD.log(records, seed)
    return log, WORLD.target(log)
