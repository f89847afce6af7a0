"""The course where nothing is allowed: its cells show what they printed when they were recorded, and say so.

``units/`` has a file for each unit, made on a machine that allows all, with the outputs of each cell under a hash of its source
(``store``). When a notebook imports nslab, it is armed: after that cell it is found out whether any namespace can be made here,
and only where none can does the notebook show recordings (``mode``), in a frame (``showing``). Then

- the first cell of a unit runs, as do cells that only import, define or ask; one that fails shows its recording instead;
- every other cell of the course is not run at all, and shows its recording;
- a cell that was written or changed runs, and when it fails says shortly what is missing.
"""

from nslab.recordings.mode import arm
from nslab.recordings.store import FOLDER, Cell, Recordings, condensed, key, write

__all__ = ["FOLDER", "Cell", "Recordings", "arm", "condensed", "key", "write"]
