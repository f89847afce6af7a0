"""Pictures. Pure functions of what nslab.model describes: no kernel, no Jupyter.

Every picture is a Picture: graphviz source, with the same said in text and as a table. ``engine`` draws it; where nothing can,
the table is shown; never a traceback. ``style`` is what all of them look like, ``views`` the door to those of live state.
"""

from nslab.render.layout import draw_layout
from nslab.render.picture import Picture
from nslab.render.views import VIEWS, draw

__all__ = ["VIEWS", "Picture", "draw", "draw_layout"]
