"""The Git side of a campaign: one commit an iteration, rejected ones reverted but findable, peers' taken over."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Mapping

import git

from enpire_agent.recipe import files_hash

_PUSH_TIMEOUT = 60.0   # s of wall time, fetch and push
_SUBJECT_LENGTH = 200


class RepositoryError(RuntimeError):
    """Git could not do it; the work tree is as it was before."""


class RecipeRepository:
    """The work tree `recipe/` of one station on the branch named after it.

    The first commit is the same in every station that starts from the same files (fixed author and date), so that
    the branches of a fleet have a common root. Neither needs nor changes any Git configuration of the user.
    """

    def __init__(self, work_tree: Path | str):
        """Open an existing work tree. Raises RepositoryError when it is none."""
        self.work_tree = Path(work_tree).resolve()
        try:
            self._repo = git.Repo(self.work_tree)
        except (git.InvalidGitRepositoryError, git.NoSuchPathError) as error:
            raise RepositoryError(f'{self.work_tree} is not a Git work tree of a campaign') from error
        _set_environment(self._repo)

    @classmethod
    def open_or_create(cls, work_tree: Path | str, station: str, starting_recipe: Path | str) -> 'RecipeRepository':
        """The campaign's work tree; on the first call with `starting_recipe` as its first commit."""
        work_tree = Path(work_tree)
        if (work_tree / '.git').exists() and _has_commit(work_tree):
            return cls(work_tree)
        work_tree.mkdir(parents=True, exist_ok=True)
        repo = git.Repo.init(work_tree, initial_branch=station)
        _configure(repo, station)
        repository = cls(work_tree)
        starting_recipe = Path(starting_recipe)
        for source in sorted(starting_recipe.rglob('*')):
            relative = source.relative_to(starting_recipe)
            if source.is_file() and '__pycache__' not in relative.parts:
                (work_tree / relative).parent.mkdir(parents=True, exist_ok=True)
                (work_tree / relative).write_bytes(source.read_bytes())
        fixed = {f'GIT_{who}_{what}': value for who in ('AUTHOR', 'COMMITTER') for what, value in (
            ('NAME', 'ENPIRE'), ('EMAIL', 'enpire@enpire.invalid'), ('DATE', '2026-01-01T00:00:00+0000'))}
        with repository._repo.git.custom_environment(**fixed):
            repository._git('add', '--all')
            repository._git('commit', '--quiet', '--allow-empty', '-m',
                            "Start from the task's recipe")
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
            if not (self.work_tree / path).resolve().is_relative_to(self.work_tree) or path.startswith('.git'):
                raise RepositoryError(f'the edit names {path}, which is outside of {self.work_tree}')
        for path, content in files.items():
            target = self.work_tree / path
            if content is None:
                target.unlink(missing_ok=True)
            else:
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_text(content, encoding='utf-8')

    def discard(self) -> None:
        """Back to the last commit: an edit that was never committed goes away."""
        self._git('reset', '--hard', '--quiet')
        self._git('clean', '-fdq')

    def commit(self, subject: str, trailers: Mapping[str, object], second_parent: str | None = None) -> str:
        """Commit the work tree; returns the SHA-1.

        second_parent: a peer's commit that was taken over, so that the history shows where the recipe came from.
        """
        subject = ' '.join(subject.split())[:_SUBJECT_LENGTH] or 'Change the recipe'
        lines = [f'{key}: {" ".join(str(value).split())}' for key, value in trailers.items()]
        message = f'{subject}\n\n' + '\n'.join(lines) + '\n'
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
        try:
            self._git('revert', '--no-edit', commit)
        except RepositoryError:
            self._abort('revert')
            raise
        return self.head

    def iteration_commit(self, number: int) -> str:
        """The commit of this branch that an iteration left, or '' (a restart asks whether it got that far)."""
        return self._git('log', '--first-parent', '-n', '1', '--format=%H', '-E', f'--grep=^Iteration: {number}$')

    def is_reverted(self, commit: str) -> bool:
        return bool(self._git('log', '-n', '1', '--format=%H', f'--grep=This reverts commit {commit}'))

    def diff(self, commit: str) -> str:
        """Unified diff of a commit against its (first) parent; empty for the first commit."""
        if not self._repo.commit(commit).parents:
            return ''
        return self._git('diff', '--no-color', f'{commit}^1', commit)

    def message(self, commit: str) -> str:
        return str(self._repo.commit(commit).message)

    def files(self, commit: str) -> dict[str, str]:
        """Path -> text of every file of a commit that is here (see `fetch`).

        Raises RepositoryError when the commit is not here.
        """
        try:
            tree = self._repo.commit(commit).tree
        except (ValueError, git.BadName) as error:
            raise RepositoryError(f'commit {commit[:12]} is not in {self.work_tree}; was it pushed to the '
                                  f'remote?') from error
        return {str(blob.path): blob.data_stream.read().decode('utf-8', 'replace')
                for blob in tree.traverse() if blob.type == 'blob'}

    def push(self, remote: str) -> None:
        """Push the branch; a local remote that does not exist yet is created.

        Raises RepositoryError with what Git said.
        """
        if _is_local(remote) and not Path(remote).exists():
            try:
                bare = git.Repo.init(remote, bare=True, initial_branch=self.branch)
                _configure(bare, self.branch)
            except (OSError, git.GitError) as error:
                raise RepositoryError(f'cannot create the remote {remote}: {error}') from error
        self._git('push', '--quiet', remote, f'HEAD:refs/heads/{self.branch}', timeout=_PUSH_TIMEOUT)

    def fetch(self, remote: str) -> None:
        """Fetch every branch of the remote to refs/remotes/fleet/. Raises RepositoryError."""
        self._git('fetch', '--quiet', remote, '+refs/heads/*:refs/remotes/fleet/*', timeout=_PUSH_TIMEOUT)

    def take_over(self, commit: str, trailers: Mapping[str, object]) -> str:
        """Make a peer's commit this branch's recipe: a merge commit whose files are exactly the peer's.

        The peer's figures belong to exactly those files, so nothing is mixed. Returns the SHA-1.
        Raises RepositoryError, with the work tree untouched, when there are uncommitted changes or the commit is
        not here.
        """
        changed = self.changed_paths()
        if changed:
            raise RepositoryError(f'{self.work_tree} has uncommitted changes ({", ".join(changed)}); '
                                  f'commit or discard them before adopting')
        self.write(self.edit_towards(commit))
        subject = self.message(commit).splitlines()[0]
        return self.commit(f'Adopt: {subject}', trailers, second_parent=self._repo.commit(commit).hexsha)

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

    def _abort(self, command: str) -> None:
        try:
            self._git(command, '--abort')
        except RepositoryError:
            self.discard()

    def _git(self, command: str, *arguments: str, timeout: float = 20.0) -> str:
        """Run one Git command, bounded by `timeout` s of wall time."""
        try:
            return self._repo.git.execute(['git', command, *arguments], kill_after_timeout=timeout)
        except git.GitCommandError as error:
            said = ' '.join(str(error.stderr or error.stdout or '').replace("stderr: '", '').split()).strip("'")
            raise RepositoryError(f'git {command} in {self.work_tree} failed: {said or error}') from error


def recipe_identity(directory: Path | str) -> str:
    """What a trial records as its recipe: a Git commit where the folder is one, else `sha256:...` of its files."""
    directory = Path(directory)
    if (directory / '.git').exists() and _has_commit(directory):
        repository = RecipeRepository(directory)
        try:
            return repository.identity()
        finally:
            repository.close()
    return files_hash(directory)


def _has_commit(work_tree: Path) -> bool:
    repo = git.Repo(work_tree)
    try:
        return repo.head.is_valid()
    finally:
        repo.close()


def _is_local(remote: str) -> bool:
    return '://' not in remote and not ('@' in remote and ':' in remote)


def _configure(repo: git.Repo, station: str) -> None:
    """Identity and quiet, kept in the repository; no hooks: what a recipe brings never runs here."""
    with repo.config_writer('repository') as config:
        config.set_value('user', 'name', station)
        config.set_value('user', 'email', f'{station}@enpire.invalid')
        config.set_value('commit', 'gpgsign', 'false')
        config.set_value('gc', 'auto', '0')
        config.set_value('core', 'hooksPath', os.devnull)
    git_dir = Path(repo.git_dir)
    (git_dir / 'info').mkdir(exist_ok=True)
    (git_dir / 'info' / 'exclude').write_text('__pycache__/\n*.pyc\n')
    # safe.directory counts only in the user's or the command's configuration, and only the former reaches the
    # programs that a local fetch or push starts. So: a configuration of our own that includes the user's.
    included = [os.environ.get('GIT_CONFIG_GLOBAL') or os.path.expanduser('~/.gitconfig')]
    lines = [f'[include]\n\tpath = {path}\n' for path in included if os.path.isfile(path)]
    (git_dir / 'enpire.gitconfig').write_text(''.join(lines) + '[safe]\n\tdirectory = *\n')


def _set_environment(repo: git.Repo) -> None:
    config = Path(repo.git_dir) / 'enpire.gitconfig'
    environment = {'GIT_TERMINAL_PROMPT': '0', 'LC_ALL': 'C', 'GIT_EDITOR': 'true'}
    if config.is_file():
        environment['GIT_CONFIG_GLOBAL'] = str(config)
    if 'GIT_SSH_COMMAND' not in os.environ:
        environment['GIT_SSH_COMMAND'] = 'ssh -o BatchMode=yes -o ConnectTimeout=10'
    repo.git.update_environment(**environment)
