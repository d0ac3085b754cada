"""The Git side of a campaign: one commit an iteration, rejected ones reverted but findable, peers' taken over."""

from __future__ import annotations

from pathlib import Path
from typing import Mapping

import git

from enpire_agent import recipe_remote
from enpire_agent.git_command import RepositoryError, exclusive, git_environment, run_git
from enpire_agent.recipe import files_hash, static_check
from enpire_bringup.configuration import ConfigurationError

TAKE_OVER, MERGE, CHERRY_PICK = 'take over', 'merge', 'cherry-pick'

_REMOTE_TIMEOUT = 60.0   # s of wall time, fetch and push
_LOCK_TIMEOUT = 20.0    # s of wall time that another command on the same work tree is waited for
_SUBJECT_LENGTH = 120
# Identity, and for who works here by hand what git_command sees to otherwise.
_CONFIGURATION = '''[user]
	name = {station}
	email = {station}@enpire.invalid
[commit]
	gpgSign = false
[core]
	hooksPath = /dev/null
[gc]
	auto = 0
'''
_WRITERS = ('add', 'cherry-pick', 'clean', 'commit', 'merge', 'reset', 'restore', 'revert')


class RecipeRepository:
    """The work tree `recipe/` of one station on the branch named after it.

    The first commit is the same in every station that starts from the same files (fixed author and date), so that
    the branches of a fleet have a common root. Neither needs nor changes any Git configuration of the user. Several
    processes may use the same work tree; what a killed one left half done is put right.
    """

    def __init__(self, work_tree: Path | str):
        """Open an existing work tree. Raises RepositoryError when it is none."""
        self.work_tree = Path(work_tree).resolve()
        self._git_dir = self.work_tree / '.git'
        try:
            self._repo = git.Repo(self.work_tree)
        except (git.InvalidGitRepositoryError, git.NoSuchPathError) as error:
            raise RepositoryError(f'{self.work_tree} is not a Git work tree of a campaign') from error
        self._repo.git.update_environment(**git_environment(self._git_dir))

    @classmethod
    def open_or_create(cls, work_tree: Path | str, station: str, starting_recipe: Path | str) -> 'RecipeRepository':
        """The campaign's work tree; on the first call with `starting_recipe` as its first commit."""
        work_tree = Path(work_tree)
        if _has_commit(work_tree):
            return cls(work_tree)
        work_tree.mkdir(parents=True, exist_ok=True)
        run_git(work_tree, 'init', '--quiet', '--template=', f'--initial-branch={station}')
        with open(work_tree / '.git' / 'config', 'a') as file:
            file.write(_CONFIGURATION.format(station=station))
        (work_tree / '.git' / 'info').mkdir(exist_ok=True)
        (work_tree / '.git' / 'info' / 'exclude').write_text('__pycache__/\n*.pyc\n')
        repository = cls(work_tree)
        starting_recipe = Path(starting_recipe)
        for source in sorted(starting_recipe.rglob('*')):
            relative = source.relative_to(starting_recipe)
            if source.is_file() and not {'__pycache__', '.git'} & set(relative.parts):
                (work_tree / relative).parent.mkdir(parents=True, exist_ok=True)
                (work_tree / relative).write_bytes(source.read_bytes())
        fixed = {f'GIT_{who}_{what}': value for who in ('AUTHOR', 'COMMITTER') for what, value in (
            ('NAME', 'ENPIRE'), ('EMAIL', 'enpire@enpire.invalid'), ('DATE', '2026-01-01T00:00:00+0000'))}
        repository._git('add', '--all')
        repository._git('commit', '--quiet', '--allow-empty', '-m', "Start from the task's recipe", **fixed)
        return repository

    @property
    def branch(self) -> str:
        return self._repo.active_branch.name

    @property
    def head(self) -> str:
        """SHA-1 of the branch's tip."""
        return self._repo.head.commit.hexsha

    def changed_paths(self) -> list[str]:
        """Paths that differ from the last commit, relative to the work tree."""
        status = self._git('status', '--porcelain', '--no-renames', '--untracked-files=all', '-z')
        return sorted(entry[3:] for entry in status.split('\0') if entry)

    def write(self, files: Mapping[str, str | None]) -> None:
        """Put an edit into the work tree (None deletes). Raises RepositoryError for a path outside of it."""
        for path in files:
            inside = (self.work_tree / path).resolve().is_relative_to(self.work_tree)
            if not inside or any(part.lower() == '.git' for part in Path(path).parts) or '..' in Path(path).parts:
                raise RepositoryError(f'the edit names {path}, which is outside of {self.work_tree}')
        for path, content in files.items():
            target = self.work_tree / path
            if content is None:
                target.unlink(missing_ok=True)
            else:
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_text(content, encoding='utf-8')

    def discard(self) -> None:
        """Back to the last commit: an edit that was never committed goes away, and compiled Python with it."""
        self._git('reset', '--hard', '--quiet')
        self._git('clean', '-ffdxq')

    def commit(self, hypothesis: str, trailers: Mapping[str, object], second_parent: str | None = None) -> str:
        """Commit the work tree; returns the SHA-1.

        second_parent: a peer's commit that was taken over, so that the history shows where the recipe came from.
        """
        text = ' '.join(hypothesis.split()) or 'Change the recipe'
        body = f'{text}\n\n' if len(text) > _SUBJECT_LENGTH else ''
        lines = [f'{key}: {" ".join(str(value).split())}' for key, value in trailers.items()]
        message = f'{_shortened(text)}\n\n{body}' + '\n'.join(lines) + '\n'
        self._git('add', '--all')
        if second_parent is None:
            self._git('commit', '--quiet', '--allow-empty', '-m', message)
        else:
            tree = self._git('write-tree')
            sha = self._git('commit-tree', tree, '-p', self.head, '-p', second_parent, '-m', message)
            self._git('reset', '--hard', '--quiet', sha)
        return self.head

    def revert(self, commit: str) -> str:
        """A commit that takes `commit` back; the rejected idea stays in the history. Returns the SHA-1."""
        subject = self.message(commit).splitlines()[0]
        try:
            # Committed apart: `git revert` alone refuses to take back an edit that changed nothing.
            self._git('revert', '--no-commit', commit)
            self._git('commit', '--quiet', '--allow-empty', '-m',
                      f'Revert "{subject}"\n\nThis reverts commit {commit}.\n')
        except RepositoryError:
            self.discard()
            raise
        return self.head

    def iteration_commit(self, number: int) -> str:
        """The commit of this branch that an iteration left, or '' (a restart asks whether it got that far)."""
        # By the trailer: a hypothesis may be of any words.
        listed = self._git('log', '--first-parent', '--format=%H %(trailers:key=Iteration,valueonly,separator=%x2C)')
        return next((line.split()[0] for line in listed.splitlines() if line.split()[1:] == [str(number)]), '')

    def is_reverted(self, commit: str) -> bool:
        return bool(self._git('log', '-n', '1', '--format=%H', f'--grep=This reverts commit {commit}'))

    def message(self, commit: str) -> str:
        return str(self._commit(commit).message)

    def has(self, commit: str) -> bool:
        """Whether a commit (full SHA-1) with its files is here."""
        try:
            self._git('cat-file', '-e', f'{commit}^{{commit}}')
        except RepositoryError:
            return False
        return True

    def files(self, commit: str) -> dict[str, str]:
        """Path -> text of every file of a commit that is here (see `fetch`).

        Raises RepositoryError when the commit is not here.
        """
        return {str(blob.path): blob.data_stream.read().decode('utf-8', 'replace')
                for blob in self._commit(commit).tree.traverse() if blob.type == 'blob'}

    def push(self, remote: str, campaign: str) -> str:
        """Push the branch; returns its name there: <campaign>/<station>, since a remote may hold many campaigns.

        A local remote that does not exist yet is created. Where somebody rewrote our branch there, nothing is
        overwritten: a new one gets our work. Raises RepositoryError with what Git said.
        """
        return recipe_remote.push(self.work_tree, remote, f'{campaign}/{self.branch}', self.head, _REMOTE_TIMEOUT)

    def fetch(self, remote: str, campaign: str, timeout: float = _REMOTE_TIMEOUT) -> None:
        """Fetch every branch of a campaign to refs/remotes/fleet/. Raises RepositoryError."""
        with self._fetching(timeout) as lock:
            recipe_remote.fetch(self.work_tree, remote, f'+refs/heads/{campaign}/*:refs/remotes/fleet/*', timeout, lock)

    def fetch_commit(self, commit: str, remote: str, campaign: str, timeout: float = _REMOTE_TIMEOUT) -> None:
        """See to it that a peer's commit is here; asks the remote only when it is not.

        Raises RepositoryError, and CommitMissingError when the remote does not have it (a branch was rewritten).
        """
        if self.has(commit):
            return
        self.fetch(remote, campaign, timeout)
        if self.has(commit):
            return
        try:
            with self._fetching(timeout) as lock:
                recipe_remote.fetch(self.work_tree, remote, commit, timeout, lock)
        except RepositoryError as error:
            raise CommitMissingError(
                f'commit {commit[:12]} is not on a branch of {remote} any more, and it does not give it out otherwise: '
                f'the branch was rewritten, or the commit never pushed') from error

    def adopt(self, commit: str, trailers: Mapping[str, object], how: str = TAKE_OVER) -> str:
        """Bring a peer's recipe, or the idea in its last commit, onto this branch; returns the new SHA-1.

        how: TAKE_OVER, a merge commit whose files are exactly the peer's, to which the peer's figures belong; MERGE,
        what both changed since their common beginning; CHERRY_PICK, only what the one commit changed, on top of ours.

        Raises RepositoryError, with the work tree as it was, when there are uncommitted changes, the commit is not
        here, both changed the same lines (ConflictError), or the outcome is no recipe.
        """
        subject = self.message(commit).splitlines()[0].removeprefix('Adopt: ')
        changed = self.changed_paths()
        if changed:
            raise RepositoryError(f'{self.work_tree} has uncommitted changes ({", ".join(changed)}); '
                                  f'commit or discard them before adopting')
        try:
            self._apply(commit, how)
            static_check(self.work_tree, self.changed_paths())
        except ConfigurationError as error:
            self.discard()
            raise RepositoryError(f'{commit[:12]} is no recipe here: {error}') from error
        except RepositoryError as error:
            conflicts = self._conflicts()
            self.discard()      # which also forgets a merge or cherry-pick that is under way
            if conflicts:
                raise ConflictError(commit, how, conflicts) from error
            raise
        parent = None if how == CHERRY_PICK else commit
        return self.commit(f'Adopt: {subject}', {**trailers, 'Adopted-By': how}, second_parent=parent)

    def put_files_of(self, commit: str) -> None:
        """Make the work tree's files exactly those of `commit`, uncommitted."""
        self._git('restore', f'--source={commit}', '--staged', '--worktree', '--', '.')

    def edit_towards(self, commit: str) -> dict[str, str | None]:
        """The edit that turns this branch's files into those of `commit`."""
        here, there = self.files('HEAD'), self.files(commit)
        edit: dict[str, str | None] = {path: None for path in here if path not in there}
        edit.update({path: content for path, content in there.items() if here.get(path) != content})
        return edit

    def identity(self) -> str:
        """The commit that first held exactly these files, or `sha256:...` of them when they are not committed."""
        if self.changed_paths():
            return files_hash(self.work_tree)
        tree = self._repo.head.commit.tree.hexsha
        line = self._git('log', '--first-parent', '--format=%H %T')
        return [entry.split()[0] for entry in line.splitlines() if entry.split()[1] == tree][-1]

    def close(self) -> None:
        self._repo.close()

    def _apply(self, commit: str, how: str) -> None:
        """Put what is adopted into the work tree, uncommitted."""
        if how == TAKE_OVER:
            self.put_files_of(commit)
        elif how == MERGE:
            self._git('merge', '--no-commit', '--no-ff', '--quiet', commit)
        elif how == CHERRY_PICK:
            of_merge = ('-m', '1') if len(self._commit(commit).parents) > 1 else ()
            self._git('cherry-pick', '--no-commit', *of_merge, commit)
        else:
            raise ValueError(f"'{how}' is no way to adopt; there are: {TAKE_OVER}, {MERGE}, {CHERRY_PICK}")

    def _conflicts(self) -> list[str]:
        listed = self._git('diff', '--name-only', '--diff-filter=U', '-z')
        return [path for path in listed.split('\0') if path]

    def _commit(self, commit: str) -> git.Commit:
        try:
            return self._repo.commit(commit)
        except (ValueError, git.BadName, git.BadObject) as error:
            raise RepositoryError(f'commit {commit[:12]} is not in {self.work_tree}; was it pushed to the '
                                  f'remote?') from error

    def _git(self, command: str, *arguments: str, **environment: str) -> str:
        """Run one Git command in the work tree; one that writes has it for itself."""
        if command not in _WRITERS:
            return run_git(self.work_tree, command, *arguments)
        locks = [self._git_dir / 'index.lock', self._git_dir / 'HEAD.lock',
                 *(self._git_dir / 'refs' / 'heads').rglob('*.lock')]
        with exclusive(self._git_dir / 'enpire.lock', locks, _LOCK_TIMEOUT) as lock:
            return run_git(self.work_tree, command, *arguments, lock=lock, **environment)

    def _fetching(self, timeout: float):
        return exclusive(self._git_dir / 'enpire-fetch.lock', (self._git_dir / 'refs' / 'remotes').rglob('*.lock'),
                         timeout)


class CommitMissingError(RepositoryError):
    """The remote answers, and does not have the commit."""


class ConflictError(RepositoryError):
    """A peer's change and ours touch the same lines; nothing was changed. `files`: paths in the recipe."""

    def __init__(self, commit: str, how: str, files: list[str]):
        super().__init__(f'cannot {how} {commit[:12]}: both changed {", ".join(files)}; nothing was changed here. '
                         f'Take the recipe over as it is instead')
        self.files = files


def recipe_identity(directory: Path | str) -> str:
    """What a trial records as its recipe: a Git commit where the folder is one, else `sha256:...` of its files."""
    directory = Path(directory)
    if _has_commit(directory):
        repository = RecipeRepository(directory)
        try:
            return repository.identity()
        finally:
            repository.close()
    return files_hash(directory)


def _has_commit(work_tree: Path) -> bool:
    if not (work_tree / '.git').is_dir():
        return False
    try:
        run_git(work_tree, 'rev-parse', '--quiet', '--verify', 'HEAD', GIT_DIR=str(work_tree.resolve() / '.git'))
    except RepositoryError:
        return False
    return True


def _shortened(text: str) -> str:
    return text if len(text) <= _SUBJECT_LENGTH else text[:_SUBJECT_LENGTH - 4].rsplit(' ', 1)[0] + ' ...'
