"""Whose files lie in a campaign's work tree: those of the best recipe, or of the candidate under trial."""

from __future__ import annotations

from enpire_agent.campaign_state import Iteration
from enpire_agent.recipe_repository import RecipeRepository

_BEST = 'best'


class ShownRecipe:
    """Changes the work tree of `repository` only where other files have to lie in it."""

    def __init__(self, repository: RecipeRepository):
        self._repository = repository
        self._shown = ''

    def candidate(self, iteration: Iteration) -> None:
        """Puts an iteration's edit into the work tree. Raises RepositoryError."""
        wanted = f'candidate {iteration.number}'
        if self._shown != wanted:
            self._shown = ''
            self._repository.discard()
            if iteration.adopts:
                self._repository.put_files_of(iteration.adopts)     # byte by byte what the peer measured
            else:
                self._repository.write(iteration.files)
            self._shown = wanted

    def best(self) -> str:
        """Puts the best recipe into the work tree and returns its identity."""
        if self._shown != _BEST:
            self._repository.discard()
            self._shown = _BEST
        return self._repository.identity()

    def forget(self) -> None:
        """The work tree was changed by other means."""
        self._shown = ''
