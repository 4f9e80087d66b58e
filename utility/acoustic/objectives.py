"""The objectives by name. Another one is a file beside these, and a line here."""

from typing import Annotated

from mynah.utility.acoustic.clusters import Clusters
from mynah.utility.acoustic.objective import Objective
from mynah.utility.acoustic.reconstruction import Reconstruction
from mynah.utility.configuration.sections import one_of, sections_of

OBJECTIVES: dict[str, type[Objective]] = {
    "reconstruction": Reconstruction,
    "clusters": Clusters,
}


class ObjectiveConfig(sections_of(OBJECTIVES)):
    """The objective, with a section for the options of each."""

    name: Annotated[str, one_of(OBJECTIVES)] = "reconstruction"
    """One of objectives.py."""
