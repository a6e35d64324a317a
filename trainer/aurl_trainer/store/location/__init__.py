"""The one room that touches a store: local disks, S3, GCS, Azure, and whatever else fsspec opens.

place.py has the operations; faults.py says what an error means, patience.py how long to try, clients.py what
each store's own client is told, disk.py how files become durable.
"""

from aurl_trainer.store.location.disk import PARTIAL
from aurl_trainer.store.location.place import Location, shown

__all__ = ["PARTIAL", "Location", "shown"]
