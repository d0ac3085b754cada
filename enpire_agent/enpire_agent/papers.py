"""A library of papers: a folder with PDFs and Markdown, and an index of all their text beside them (SQLite FTS5).

    library = Library('papers')
    library.refresh()
    for found in library.search('residual reinforcement learning'):
        print(found.title, found.page, found.snippet)

The index follows the folder: what is new or changed is read again, what is gone is forgotten. Several processes may use
it at once: one of them reads, each sees a document as it was or as it is.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import sqlite3
import tempfile
import time
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Iterator

from enpire_agent.arxiv import PAUSE, Preprint, endpoint, search_arxiv
from enpire_agent.durable_file import write_durably
from enpire_agent.pdf_text import PdfText, read_pdf
from enpire_bringup.paths import runs_directory

RESULTS = 5                      # where nobody asks for more
LONGEST_SNIPPET = 200            # characters
LARGEST_FILE = 100 << 20         # bytes
MOST_DOCUMENTS = 5000
KINDS = {'.pdf': 'PDF', '.md': 'Markdown', '.markdown': 'Markdown'}
_INDEX, _LOCK = '.enpire-papers.sqlite3', '.enpire-papers.lock'
_SECTION = 3000                  # characters from which on a Markdown file's next heading begins a page
_LONGEST_TITLE = 120             # characters
_BUSY = 30.0                     # s of wall time that another process is waited for
_VERSION = 1                     # of the tables
_TABLES = f'''
    CREATE TABLE documents (id TEXT PRIMARY KEY, file TEXT UNIQUE, size INTEGER, changed INTEGER, title TEXT,
                            pages INTEGER, problem TEXT);
    CREATE VIRTUAL TABLE texts USING fts5(title, text, id UNINDEXED, number UNINDEXED,
                                          tokenize = "porter unicode61 remove_diacritics 2");
    PRAGMA user_version = {_VERSION};
'''


class PapersError(RuntimeError):
    """The library cannot do what was asked; the message says what to do."""


@dataclass(frozen=True)
class Document:
    """One file. id: stands for its name, whoever indexes it; pages: how many; problem: why not all of it is there."""

    id: str
    file: str
    title: str
    pages: int
    problem: str = ''


@dataclass(frozen=True)
class Found:
    """The page of a document that fits a query best. also: further pages that fit."""

    document: Document
    page: int
    snippet: str
    also: tuple[int, ...] = ()


@dataclass(frozen=True)
class Refreshed:
    """What a refresh did. problems: of the documents that it read. stale: why the index may be behind the folder."""

    read: int = 0
    forgotten: int = 0
    problems: tuple[str, ...] = ()
    stale: str = ''


def library_folder(folder: Path | str = '') -> Path:
    """The folder of the library: the one given, else $ENPIRE_PAPERS, else runs/papers."""
    return Path(folder or os.environ.get('ENPIRE_PAPERS') or runs_directory() / 'papers').absolute()


class Library:
    """A folder of papers, with its index."""

    def __init__(self, folder: Path | str):
        self.folder = Path(folder).absolute()
        self._index = self.folder / _INDEX

    # --- what is there ---

    def refresh(self, busy: float = _BUSY) -> Refreshed:
        """Bring the index up to what is in the folder.

        busy: s for which another process that is at it is waited for; then the index counts as it is.
        Raises PapersError where there is no such folder, or no index and none can be written.
        """
        if not self.folder.is_dir():
            raise PapersError(f'{self.folder}: no such folder; `enpire papers --add FILE` makes it, or name another by '
                              '--library or $ENPIRE_PAPERS')
        try:
            with _held(self.folder / _LOCK, busy):
                try:
                    return self._refresh()
                except sqlite3.OperationalError:
                    raise
                except sqlite3.DatabaseError:      # it is no index, or one that is broken
                    self._index.unlink(missing_ok=True)
                    return self._refresh()
        except TimeoutError:
            return self._behind('another process reads the papers right now')
        except (OSError, sqlite3.Error) as error:
            return self._behind(f'the index cannot be written ({error})')

    def _behind(self, reason: str) -> Refreshed:
        if not self._index.exists():
            raise PapersError(f'{self.folder} has no index yet: {reason}; type `enpire papers` as somebody who may '
                              'write there')
        known = self._ask('SELECT file, size, changed FROM documents', lambda row: (row[0], row[1:]))
        return Refreshed(stale='' if dict(known) == dict(self._files()) else reason)

    def _refresh(self) -> Refreshed:
        with closing(self._connection()) as index:
            known = {file: (size, changed) for file, size, changed in
                     index.execute('SELECT file, size, changed FROM documents')}
            there = dict(self._files())
            gone, problems, read = known.keys() - there.keys(), [], 0
            for file in gone:
                self._forget(index, file)
            for file, (size, changed) in there.items():
                if known.get(file) == (size, changed):
                    continue
                document = self._read(index, file, size, changed)
                read += 1
                if document.problem:
                    problems.append(f'{file} {document.problem}')
            return Refreshed(read, len(gone), tuple(problems))

    def _files(self) -> Iterator[tuple[str, tuple[int, int]]]:
        """(name in the folder, (bytes, time of change in ns)) of every document, hidden ones left out."""
        count = 0
        for place, folders, files in os.walk(self.folder, onerror=_raise):      # not to be read is not gone
            folders[:] = sorted(name for name in folders if not name.startswith('.'))
            for name in sorted(files):
                file = Path(place, name)
                if name.startswith('.') or file.suffix.lower() not in KINDS or not file.is_file():
                    continue
                count += 1
                if count > MOST_DOCUMENTS:
                    raise PapersError(f'{self.folder} has more than {MOST_DOCUMENTS} documents; name a smaller folder')
                state = file.stat()
                yield str(file.relative_to(self.folder)), (state.st_size, state.st_mtime_ns)

    def _read(self, index: sqlite3.Connection, file: str, size: int, changed: int) -> Document:
        text = self._text(self.folder / file, size)
        title = _title(text, file)
        document = Document(hashlib.sha256(file.encode()).hexdigest()[:8], file, title, len(text.pages), text.problem)
        with index:
            index.execute('BEGIN IMMEDIATE')
            self._delete(index, file)
            index.execute('INSERT OR REPLACE INTO documents VALUES (?, ?, ?, ?, ?, ?, ?)',
                          (document.id, file, size, changed, title, len(text.pages), text.problem))
            index.executemany('INSERT INTO texts (title, text, id, number) VALUES (?, ?, ?, ?)',
                              [('' if number else title, page, document.id, number + 1)
                               for number, page in enumerate(text.pages)])
        return document

    @staticmethod
    def _text(file: Path, size: int) -> PdfText:
        if size > LARGEST_FILE:
            return PdfText('', (), f'has more than {LARGEST_FILE >> 20} MB')
        if KINDS[file.suffix.lower()] == 'PDF':
            return read_pdf(file)
        try:
            return markdown_text(file.read_text(encoding='utf-8', errors='replace'))
        except OSError as error:
            return PdfText('', (), f'cannot be read ({error.strerror})')

    def _forget(self, index: sqlite3.Connection, file: str) -> None:
        with index:
            index.execute('BEGIN IMMEDIATE')
            self._delete(index, file)

    @staticmethod
    def _delete(index: sqlite3.Connection, file: str) -> None:
        index.execute('DELETE FROM texts WHERE id IN (SELECT id FROM documents WHERE file = ?)', (file,))
        index.execute('DELETE FROM documents WHERE file = ?', (file,))

    # --- asking ---

    def documents(self) -> list[Document]:
        """Every document of the index, by the name of its file."""
        return self._ask('SELECT id, file, title, pages, problem FROM documents ORDER BY file',
                         lambda row: Document(*row))

    def search(self, query: str, limit: int = RESULTS) -> list[Found]:
        """The documents with a page that has all words of `query` ("several words" in quotes: one after the other),
        the best first; where there is none, those that have some of them."""
        words = re.findall(r'\w+', query)
        if not words:
            raise PapersError(f"'{query}' has no word to look for")
        terms = [' '.join(re.findall(r'\w+', phrase or word))
                 for phrase, word in re.findall(r'"([^"]+)"|([^\s"]+)', query)]
        everything = ' '.join(f'"{term}"' for term in terms if term)
        return self._matches(everything, limit) or self._matches(' OR '.join(f'"{word}"' for word in words), limit)

    def _matches(self, expression: str, limit: int) -> list[Found]:
        # A match in the title counts most. The rows are few: nobody reads the 500th page.
        rows = self._ask('''SELECT documents.id, file, documents.title, documents.pages, problem, number,
                                   snippet(texts, 1, '', '', ' ... ', 32)
                            FROM texts JOIN documents ON documents.id = texts.id
                            WHERE texts MATCH ? ORDER BY bm25(texts, 5.0, 1.0) LIMIT 500''', tuple, expression)
        found: dict[str, list] = {}
        for row in rows:
            found.setdefault(row[0], []).append(row)
        return [Found(Document(*pages[0][:5]), pages[0][5], _shortened(pages[0][6], LONGEST_SNIPPET),
                      tuple(sorted(page[5] for page in pages[1:6])))
                for pages in list(found.values())[:limit]]

    def page(self, name: str, number: int) -> tuple[Document, str]:
        """A document, by its id or the beginning of it or the name of its file, and the text of one of its pages.

        Raises PapersError saying which there are.
        """
        documents = [document for document in self.documents()
                     if name == document.file or len(name) >= 4 and document.id.startswith(name)]
        if len(documents) != 1:
            raise PapersError(f"no document '{name}' in {self.folder}; `enpire papers` lists them")
        document = documents[0]
        texts = self._ask('SELECT text FROM texts WHERE id = ? AND number = ?', lambda row: row[0], document.id, number)
        if not texts:
            raise PapersError(f'{document.file} has no page {number}; its pages: '
                              + (f'1 to {document.pages}' if document.pages else f'none, it {document.problem}'))
        return document, texts[0]

    def _ask(self, statement: str, made, *values) -> list:
        """Rows of the index, which is not changed. Raises PapersError where it cannot be read."""
        try:
            with closing(sqlite3.connect(f'{self._index.as_uri()}?mode=ro', uri=True, timeout=_BUSY)) as index:
                return [made(row) for row in index.execute(statement, values)]
        except sqlite3.OperationalError as error:
            raise PapersError(f'{self._index}: cannot be read ({error})') from error
        except sqlite3.Error as error:
            raise PapersError(f'{self._index}: is broken ({error}); remove it, it is made anew then') from error

    # --- taking in ---

    def add(self, source: Path | str) -> list[str]:
        """Copy a document, or all in a folder, into the library; the names they have there, of what is new.

        Raises PapersError where there is none.
        """
        source = Path(source).absolute()
        if source.is_dir():
            files = [(file, Path(source.name) / file.relative_to(source)) for file in sorted(source.rglob('*'))
                     if file.is_file() and file.suffix.lower() in KINDS and not file.name.startswith('.')]
        else:
            files = [(source, Path(source.name))] if source.is_file() and source.suffix.lower() in KINDS else []
        if not files:
            raise PapersError(f'{source}: no document there; the library takes ' + ', '.join(KINDS))
        added = []
        for file, name in files:
            try:
                if file.stat().st_size > LARGEST_FILE:
                    raise PapersError(f'{file} has more than {LARGEST_FILE >> 20} MB')
                content = file.read_bytes()
                target = self._free_place(name, content)
                if target is not None:
                    write_durably(target, content)
                    added.append(str(target.relative_to(self.folder)))
            except OSError as error:
                raise PapersError(f'{file} cannot be copied to {self.folder} ({error})') from error
        return added

    def _free_place(self, name: Path, content: bytes) -> Path | None:
        """Where a file of that name goes; None where it is there already."""
        number, target = 1, self.folder / name
        while target.exists():
            if target.read_bytes() == content:
                return None
            number += 1
            target = self.folder / name.with_name(f'{name.stem}-{number}{name.suffix}')
        return target

    # --- arXiv ---

    def ask_arxiv(self, query: str, limit: int = RESULTS) -> list[Preprint]:
        """Search arXiv, one process after the other and not more often than it likes. Raises ArxivError."""
        lock = Path(tempfile.gettempdir(), f'enpire-arxiv-{os.getuid()}.lock')
        try:
            with _held(lock, _BUSY) as last:
                time.sleep(min(PAUSE, max(0.0, PAUSE - (time.time() - last))))
                try:
                    return search_arxiv(query, limit, endpoint())
                finally:
                    os.utime(lock)
        except TimeoutError:
            raise PapersError('other processes ask arXiv right now; try again in a minute') from None

    def _connection(self) -> sqlite3.Connection:
        """The index, made where it is missing; of another version it is made anew."""
        index = sqlite3.connect(self._index, timeout=_BUSY, isolation_level=None)
        try:
            version, = index.execute('PRAGMA user_version').fetchone()
            if version != _VERSION:
                index.executescript('DROP TABLE IF EXISTS documents; DROP TABLE IF EXISTS texts;' + _TABLES)
        except sqlite3.Error:
            index.close()
            raise
        return index


def markdown_text(text: str) -> PdfText:
    """A Markdown file as pages of some thousand characters, each of which begins with a heading where it can."""
    pages, title, fenced = [''], '', False
    for line in text.splitlines(keepends=True):
        if line.lstrip().startswith('```'):
            fenced = not fenced
        heading = not fenced and re.match(r'#{1,6}\s+(.*\S)', line)
        if heading and not title:
            title = heading[1]
        if pages[-1] and (heading and len(pages[-1]) + len(line) > _SECTION / 2 or len(pages[-1]) > _SECTION):
            pages.append('')
        pages[-1] += line
    pages = [page[i:i + 10 * _SECTION] for page in pages for i in range(0, len(page), 10 * _SECTION)]
    return PdfText(title, tuple(pages), '' if text.strip() else 'is empty')


def _title(text: PdfText, file: str) -> str:
    """The title that the file names, else its first line that looks like one, else its name."""
    # What word processors and typesetters put there by themselves is none.
    stated = ' '.join(text.title.split())
    if len(stated) >= 5 and not re.search(r'\.(dvi|tex|docx?|indd|pdf)$|^untitled|^microsoft', stated, re.IGNORECASE):
        return _shortened(stated, _LONGEST_TITLE)
    lines = (' '.join(line.split()) for line in (text.pages[0] if text.pages else '').splitlines()[:20])
    first = next((line for line in lines if len(line) >= 10 and re.search(r'[^\W\d]{3}', line)
                  and not line.lower().startswith('arxiv:')), '')
    return _shortened(first or Path(file).stem, _LONGEST_TITLE)


def _raise(error: OSError) -> None:
    raise error


def _shortened(text: str, most: int) -> str:
    line = ' '.join(text.split())
    return line if len(line) <= most else line[:most - 4].rstrip() + ' ...'


@contextmanager
def _held(lock: Path, within: float) -> Iterator[float]:
    """Hold a lock file against other processes; gives the time (s since 1970) of the last touch, 0 for never.

    Raises TimeoutError where it is not free `within` so many s, OSError where it cannot be written.
    """
    deadline = time.monotonic() + within
    new = not lock.exists()
    with open(lock, 'a') as stream:
        while True:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise TimeoutError from None
                time.sleep(0.05)
        yield 0.0 if new else lock.stat().st_mtime
