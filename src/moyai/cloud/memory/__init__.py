"""A cloud in memory, for tests and for runs at scale: an adapter like any other, and held to the same contract suite."""

from moyai.cloud.memory.memory_adapter import MemoryAdapter as MemoryAdapter
from moyai.cloud.memory.memory_cloud import MemoryCloud as MemoryCloud
from moyai.cloud.memory.orders import Delays as Delays
from moyai.cloud.memory.orders import Killed as Killed
from moyai.cloud.memory.orders import Mortal as Mortal
