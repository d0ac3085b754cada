"""A search on arXiv through its public API: one request, few results, with a time-out.

The API is described at info.arxiv.org/help/api; it answers in Atom, and asks for one connection at a time and 3 s
between two requests (see papers.py).
"""

from __future__ import annotations

import http.client
import os
import re
import time
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from xml.etree import ElementTree

DEFAULT_ENDPOINT = 'https://export.arxiv.org/api/query'
TIMEOUT = 10.0               # s of wall time, for the whole answer
MOST_RESULTS = 20
PAUSE = 3.0                  # s between two requests
_LARGEST_ANSWER = 2 << 20    # bytes
_ATOM = '{http://www.w3.org/2005/Atom}'


class ArxivError(RuntimeError):
    """arXiv gave no answer that is of use; the message is one line and says why."""


@dataclass(frozen=True)
class Preprint:
    """One result. id: such as 2303.04137v5; authors: as on the paper; abstract: on one line."""

    id: str
    title: str
    authors: tuple[str, ...]
    year: str
    abstract: str


def endpoint() -> str:
    """Where arXiv answers: $ENPIRE_ARXIV, else the public one."""
    return os.environ.get('ENPIRE_ARXIV') or DEFAULT_ENDPOINT


def search_arxiv(query: str, limit: int, url: str, timeout: float = TIMEOUT) -> list[Preprint]:
    """The preprints that have all words of `query`, best first. Raises ArxivError."""
    words = re.findall(r'\w+', query)
    if not words:
        raise ArxivError(f"'{query}' has no word to look for")
    asked = urllib.parse.urlencode({'search_query': ' AND '.join(f'all:{word}' for word in words),
                                    'max_results': min(limit, MOST_RESULTS), 'sortBy': 'relevance'})
    answer = _answer(f'{url}?{asked}', urllib.parse.urlsplit(url).netloc, timeout)
    if b'<!DOCTYPE' in answer or b'<!ENTITY' in answer:
        raise ArxivError('the answer of arXiv is no list of papers; a page of a proxy?')
    try:
        entries = ElementTree.fromstring(answer).findall(f'{_ATOM}entry')
    except ElementTree.ParseError as error:
        raise ArxivError(f'the answer of arXiv is no list of papers ({error})') from error
    preprints = [_preprint(entry) for entry in entries][:limit]
    for preprint in preprints:
        if preprint.title == 'Error':      # as it answers what it does not understand
            raise ArxivError(f'arXiv refuses that: {preprint.abstract}')
    return preprints


def _answer(url: str, host: str, timeout: float) -> bytes:
    deadline = time.monotonic() + timeout
    request = urllib.request.Request(url, headers={'User-Agent': 'enpire-papers/0.1'})
    try:
        with urllib.request.urlopen(request, timeout=timeout) as response:
            answer = b''
            while part := response.read1(1 << 16):
                answer += part
                if len(answer) > _LARGEST_ANSWER:
                    raise ArxivError(f'{host} answered more than {_LARGEST_ANSWER >> 20} MB')
                if time.monotonic() > deadline:
                    raise TimeoutError
            return answer
    except urllib.error.HTTPError as error:
        if error.code in (429, 503):
            raise ArxivError(f'{host} is busy (HTTP {error.code}); try again in a minute') from error
        raise ArxivError(f'{host} answered HTTP {error.code}') from error
    except TimeoutError as error:
        raise ArxivError(f'{host} did not answer within {timeout:g} s; the local library works without it') from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, 'reason', None) or error
        if isinstance(reason, TimeoutError):
            reason = f'no answer within {timeout:g} s'
        raise ArxivError(f'{host} cannot be reached ({reason}); the local library works without it') from error


def _preprint(entry: ElementTree.Element) -> Preprint:
    def text(name: str) -> str:
        return ' '.join((entry.findtext(f'{_ATOM}{name}') or '').split())

    authors = tuple(' '.join((name.text or '').split()) for name in entry.iterfind(f'{_ATOM}author/{_ATOM}name'))
    return Preprint(text('id').rpartition('/abs/')[2] or text('id'), text('title'), authors, text('published')[:4],
                    text('summary'))
