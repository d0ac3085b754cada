"""The text of a PDF, page by page, read in a process of its own: python -m enpire_agent.pdf_text FILE.

A PDF is a program for its reader, and comes from anywhere. So it is read by a process that has little time and memory
and, where the kernel can (program_confinement.py), reaches no other file, no network and no process.
"""

from __future__ import annotations

import json
import logging
import os
import re
import resource
import subprocess
import sys
import unicodedata
from dataclasses import dataclass
from pathlib import Path

READ_WITHIN = 60                 # s of CPU time a file
MEMORY = 1 << 30                 # bytes
MOST_PAGES = 2000
LONGEST_PAGE = 50_000            # characters
_PROBLEM, _TITLE, _PAGES, _PAGE = 'problem', 'title', 'pages', 'page'      # what a line of the process tells


@dataclass(frozen=True)
class PdfText:
    """What was read. title: of the file's own metadata, '' where it has none. problem: why not all, or nothing."""

    title: str
    pages: tuple[str, ...]
    problem: str = ''


def read_pdf(file: Path | str, within: float = READ_WITHIN) -> PdfText:
    """Read a PDF in at most `within` s of CPU time; what was read before a limit or an error is kept.

    Never raises for what is in the file.
    """
    command = [sys.executable, '-P', '-B', '-m', __name__, str(file), str(max(1, round(within)))]
    environment = {'PYTHONPATH': os.pathsep.join(filter(None, sys.path)), 'LANG': 'C.UTF-8'}
    try:
        ended = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, timeout=3 * within + 10)      # it may get no core for a while
        said, code = ended.stdout, ended.returncode
    except subprocess.TimeoutExpired as late:
        said, code = late.stdout or b'', None
    told: dict[str, str] = {}
    pages = []
    for line in said.splitlines():
        try:
            kind, value = json.loads(line)
        except ValueError:
            break        # it ended in the middle of a line
        if kind == _PAGE:
            pages.append(value)
        else:
            told[kind] = value
    problem = told.get(_PROBLEM, '')
    if not problem and code != 0:
        problem = f'could not be read within {within:g} s and {MEMORY >> 20} MB'
    if problem and pages:
        problem += f'; its first {len(pages)} of {told.get(_PAGES, "?")} pages are there'
    elif not problem and not any(page.strip() for page in pages):
        problem = 'has no text; a scan? `ocrmypdf` gives it one'
    return PdfText(told.get(_TITLE, ''), tuple(pages), problem)


def _tell(kind: str, value) -> None:
    sys.stdout.write(json.dumps([kind, value]) + '\n')
    sys.stdout.flush()


def main() -> None:
    """The process: tells title, number of pages and each page as a line of JSON."""
    file, seconds = sys.argv[1], int(sys.argv[2])
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    import pypdf

    from enpire_bringup.program_confinement import confine, refuse_system_calls

    logging.getLogger('pypdf').setLevel(logging.CRITICAL)      # what is odd in a file is of no use to anybody
    try:
        with open(file, 'rb') as stream:
            confine([entry for entry in sys.path if entry], ())
            refuse_system_calls()
            _read(pypdf, stream)
    except MemoryError:
        _tell(_PROBLEM, f'needs more than {MEMORY >> 20} MB to be read')
    except Exception as error:
        _tell(_PROBLEM, f'is broken ({" ".join(str(error).split())[:100] or type(error).__name__})')


def _read(pypdf, stream) -> None:
    reader = pypdf.PdfReader(stream)
    if reader.is_encrypted and not _opens(pypdf, reader):
        return _tell(_PROBLEM, 'is encrypted; put a copy without a password there')
    _tell(_PAGES, len(reader.pages))
    _tell(_TITLE, str((reader.metadata or {}).get('/Title') or '')[:300])
    if len(reader.pages) > MOST_PAGES:
        _tell(_PROBLEM, f'has more than {MOST_PAGES} pages')
    for number in range(min(len(reader.pages), MOST_PAGES)):
        _tell(_PAGE, _plain(reader.pages[number].extract_text())[:LONGEST_PAGE])


def _opens(pypdf, reader) -> bool:
    """Whether it opens without a password, as one does whose author only forbids printing."""
    try:
        return bool(reader.decrypt(''))
    except pypdf.errors.DependencyError:      # AES, for which a further library would be needed
        return False


def _plain(text: str) -> str:
    """Ligatures taken apart, words that a line's end divides put together, what cannot be written left out."""
    normal = unicodedata.normalize('NFKC', text).encode('utf-8', 'ignore').decode('utf-8')
    normal = re.sub(r'(?<=[^\W\d])-\n(?=[a-z])', '', normal)
    return ''.join(character if character.isprintable() or character == '\n' else ' ' for character in normal)


if __name__ == '__main__':
    main()
