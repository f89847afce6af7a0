"""Pictures. Pure functions of what nslab.model describes: no kernel, no Jupyter.

Every picture is a Picture: graphviz source, with the same said in text. Drawn by graphviz's ``dot`` where the machine has
it, shown as text where not; never a traceback.
"""

from nslab.render.layout import draw_layout
from nslab.render.namespace_map import draw
from nslab.render.picture import Picture

__all__ = ["Picture", "draw", "draw_layout"]
