"""The verb about papers: papers."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict

_LISTED = 50              # documents, without a query
_LONGEST_PAGE = 8000      # characters that are printed of a page


def add_verbs(verbs) -> None:
    papers = verbs.add_parser('papers', help='search a folder of papers, and arXiv where asked; docs/papers.md')
    papers.add_argument('query', nargs='*', help='words that a page has to have, in double quotes one after the other; '
                                                 'without any: what there is')
    papers.add_argument('--limit', type=_positive, default=5, metavar='N', help='of results; default: %(default)s')
    papers.add_argument('--add', default='', metavar='FILE',
                        help='copy a PDF or Markdown file, or a folder of them, to the others')
    papers.add_argument('--show', default='', metavar='ID', help='the text of a page of one')
    papers.add_argument('--page', type=_positive, default=1, metavar='N', help='which; default: %(default)s')
    papers.add_argument('--arxiv', action='store_true', help='search arXiv instead, over the network')
    papers.add_argument('--library', default='', metavar='FOLDER', help='default: $ENPIRE_PAPERS, else runs/papers')
    papers.add_argument('--json', action='store_true', help='as JSON')
    papers.set_defaults(run=run_papers)


def _positive(text: str) -> int:
    if not text.isdigit() or not 1 <= int(text) <= 10_000:
        raise argparse.ArgumentTypeError(f"'{text}' is no count; expected a whole number from 1 to 10000")
    return int(text)


def run_papers(options) -> int:
    from enpire_agent.papers import Library, library_folder

    library, query = Library(library_folder(options.library)), ' '.join(options.query)
    if options.arxiv:
        return _print_arxiv(library, query, options)
    if options.add:
        added = library.add(options.add)
        print(f'enpire: {len(added)} added to {library.folder}' + ('' if added else ': all of it is there already'))
    refreshed = library.refresh()
    for problem in refreshed.problems:
        print(f'enpire: {problem}', file=sys.stderr)
    if refreshed.stale:
        print(f'enpire: {refreshed.stale}; the index may be behind', file=sys.stderr)
    if options.show:
        return _print_page(library, options)
    if query:
        return _print_found(library, query, options)
    return 0 if options.add else _print_documents(library, options)


def _print_found(library, query: str, options) -> int:
    found = library.search(query, options.limit)
    if options.json:
        print(json.dumps([{**asdict(one.document), 'page': one.page, 'snippet': one.snippet, 'also': one.also}
                          for one in found]))
    for one in () if options.json else found:
        also = f", also {', '.join(map(str, one.also))}" if one.also else ''
        print(f'{one.document.id}  {one.document.title}\n'
              f'    {one.document.file} p. {one.page} of {one.document.pages}{also}: {one.snippet}')
    if not found:
        print(f"enpire: nothing about '{query}' in {library.folder}", file=sys.stderr)
    return 0 if found else 1


def _print_page(library, options) -> int:
    document, text = library.page(options.show, options.page)
    if options.json:
        print(json.dumps({**asdict(document), 'page': options.page, 'text': text}))
        return 0
    print(f'{document.title} ({document.file}), page {options.page} of {document.pages}\n\n'
          + text[:_LONGEST_PAGE].strip() + ('\n... (--json has all of it)' if len(text) > _LONGEST_PAGE else ''))
    return 0


def _print_documents(library, options) -> int:
    documents = library.documents()
    if options.json:
        print(json.dumps([asdict(document) for document in documents]))
        return 0
    for document in documents[:_LISTED]:
        print(f'{document.id}  {document.pages:4} p.  {document.title}  ({document.file}'
              + (f': {document.problem})' if document.problem else ')'))
    print(f'{len(documents)} documents in {library.folder}')
    return 0


def _print_arxiv(library, query: str, options) -> int:
    preprints = library.ask_arxiv(query, options.limit)
    if options.json:
        print(json.dumps([asdict(preprint) for preprint in preprints]))
    for preprint in () if options.json else preprints:
        authors = ', '.join(preprint.authors[:3]) + (' et al.' if len(preprint.authors) > 3 else '')
        abstract = preprint.abstract
        print(f'{preprint.id}  {preprint.title} ({authors}, {preprint.year})\n'
              f'    {abstract if len(abstract) <= 200 else abstract[:196].rstrip() + " ..."}')
    if not preprints:
        print(f"enpire: arXiv has nothing about '{query}'", file=sys.stderr)
    return 0 if preprints else 1
