"""A folder of papers: what is found in it, and that no file in it can do harm."""

import io
import os
import sqlite3
import subprocess
import sys
import threading
import zlib
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pypdf
import pytest

from enpire_agent import papers
from enpire_agent.arxiv import ArxivError, search_arxiv
from enpire_agent.cli import main
from enpire_agent.papers import Library, PapersError, markdown_text
from enpire_agent.pdf_text import read_pdf
from enpire_bringup.program_confinement import landlock_version


NOTES = '# Pushing a block\n\nFriction decides where the block goes.\n'


def pdf(*pages, title='', compress=False):
    """A PDF with a line of text a page; text that begins with an operator is taken as it is."""
    kids = ' '.join(f'{5 + 2 * k} 0 R' for k in range(len(pages)))
    objects = ['<< /Type /Catalog /Pages 2 0 R >>',
               f'<< /Type /Pages /Count {len(pages)} /Kids [{kids}] >>',
               '<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>',
               f'<< /Title ({title}) >>']
    for number, text in enumerate(pages):
        stream = text if text.startswith('BT') else f'BT /F1 12 Tf 72 720 Td ({text}) Tj ET'
        content = zlib.compress(stream.encode(), 9).decode('latin-1') if compress else stream
        filters = '/Filter /FlateDecode' if compress else ''
        objects += [f'<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Resources << /Font << /F1 3 0 R >> >> '
                    f'/Contents {6 + 2 * number} 0 R >>',
                    f'<< /Length {len(content)} {filters} >>\nstream\n{content}\nendstream']
    written, places = '%PDF-1.4\n', []
    for number, text in enumerate(objects, 1):
        places.append(len(written))
        written += f'{number} 0 obj\n{text}\nendobj\n'
    table = ''.join(f'{place:010d} 00000 n \n' for place in places)
    return (f'{written}xref\n0 {len(objects) + 1}\n0000000000 65535 f \n{table}trailer\n<< /Size {len(objects) + 1} '
            f'/Root 1 0 R /Info 4 0 R >>\nstartxref\n{len(written)}\n%%EOF\n').encode('latin-1')


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / 'papers'
    folder.mkdir()
    (folder / 'notes.md').write_text(NOTES)
    return folder


@pytest.fixture(scope='module')
def library(tmp_path_factory):
    """A library that no test changes, with a PDF."""
    folder = tmp_path_factory.mktemp('papers')
    (folder / 'notes.md').write_text(NOTES)
    (folder / 'residual.pdf').write_bytes(pdf(
        'BT /F1 12 Tf 72 720 Td (We learn what a con-) Tj 0 -14 Td (troller lacks.) Tj ET',
        'The residual policy adds its action to that of the controller.',
        title='Residual Policies for Robots'))
    library = Library(folder)
    assert library.refresh().read == 2
    return library


@pytest.fixture
def read(monkeypatch):
    """Names of the PDFs that were read."""
    names = []
    monkeypatch.setattr(papers, 'read_pdf', lambda file: names.append(file.name) or read_pdf(file))
    return names


def test_a_search_gives_document_page_and_snippet(library):
    found, = library.search('controllers action')      # other forms of a word are found as well
    document = found.document
    assert (document.title, document.file, found.page) == ('Residual Policies for Robots', 'residual.pdf', 2)
    divided, = library.search('controller')      # by the end of a line, on the first page
    assert {divided.page, *divided.also} == {1, 2}
    assert 'adds its action' in found.snippet and len(found.snippet) <= 200
    assert [one.document.file for one in library.search('friction')] == ['notes.md']
    assert library.search('"action to that"') and library.search('"that to action"')[0].page == 2
    assert library.search('nothingofthesort') == []
    for odd in ('"', 'AND', 'a* OR (', "it's NEAR(", 'text:block'):      # no query is a syntax error
        try:
            library.search(odd)
        except PapersError as error:
            assert 'no word' in str(error)


def test_a_page_of_a_document_can_be_read(library):
    found, = library.search('friction')
    assert library.page(found.document.id, 1)[1].startswith('# Pushing a block')
    assert library.page('residual.pdf', 2)[1].startswith('The residual policy')
    with pytest.raises(PapersError, match='no page 3; its pages: 1 to 2'):
        library.page('residual.pdf', 3)
    with pytest.raises(PapersError, match="no document 'abc'"):
        library.page('abc', 1)


def test_only_what_changed_is_read_again(folder, read):
    library = Library(folder)
    (folder / 'robots.pdf').write_bytes(pdf('The residual policy.'))
    library.refresh()
    assert library.refresh() == papers.Refreshed() and read == ['robots.pdf'] and library.search('residual')
    (folder / 'robots.pdf').write_bytes(pdf('Something about a gripper.', title='Grippers today'))
    os.utime(folder / 'robots.pdf', (1, 1))
    (folder / 'notes.md').unlink()
    refreshed = Library(folder).refresh()
    assert (refreshed.read, refreshed.forgotten, read) == (1, 1, ['robots.pdf', 'robots.pdf'])
    assert [document.title for document in library.documents()] == ['Grippers today']
    assert library.search('gripper') and not library.search('residual') and not library.search('friction')


def test_a_pdf_that_cannot_be_read_is_reported_once_and_skipped(folder, capsys):
    writer = pypdf.PdfWriter(clone_from=io.BytesIO(pdf('Secret.')))
    writer.encrypt('word', algorithm='RC4-128')
    writer.write(folder / 'locked.pdf')
    (folder / 'broken.pdf').write_bytes(pdf('x')[:200] + b'\xff' * 50)
    (folder / 'scan.pdf').write_bytes(pdf('BT ET'))
    arguments = ['papers', 'friction', '--library', str(folder)]
    assert main(arguments) == 0
    out, err = capsys.readouterr()
    assert 'Pushing a block' in out
    assert 'locked.pdf is encrypted' in err and 'broken.pdf is broken' in err and 'scan.pdf has no text' in err
    assert main(arguments) == 0 and capsys.readouterr().err == ''
    assert main(['papers', '--library', str(folder)]) == 0 and 'is encrypted' in capsys.readouterr().out


def test_a_pdf_that_asks_for_too_much_is_given_up(tmp_path):
    file = tmp_path / 'bomb.pdf'
    file.write_bytes(pdf('It begins well.', 'BT /F1 12 Tf ' + '(x) Tj ' * 600_000 + 'ET', compress=True))
    text = read_pdf(file, within=1)
    assert text.pages[0].strip() == 'It begins well.' and len(text.pages) == 1
    assert 'within 1 s' in text.problem and 'first 1 of 2 pages' in text.problem


def test_two_processes_may_index_at_once(folder):
    for number in range(20):
        (folder / f'{number}.md').write_text(f'# Paper {number}\n\ncommon words\n')
    code = ('import sys; from enpire_agent.papers import Library; library = Library(sys.argv[1]); library.refresh(); '
            'print(len(library.search("common words", 50)))')
    both = [subprocess.Popen([sys.executable, '-c', code, folder], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [process.communicate(timeout=60)[0] for process in both] == ['20\n', '20\n']
    # While somebody else reads, what is there already can be searched.
    (folder / '0.md').write_text('changed')
    with papers._held(folder / papers._LOCK, 1.0):
        stale = Library(folder).refresh(busy=0.0)
    assert 'another process' in stale.stale
    assert len(Library(folder).search('common', 50)) == 20


@pytest.mark.skipif(not landlock_version(), reason='the kernel has no Landlock')
def test_whoever_may_only_read_the_folder_searches_the_index_there_is(folder):
    code = ('import sys; from enpire_agent.cli import main; from enpire_bringup.program_confinement import confine\n'
            'confine([*filter(None, sys.path), sys.argv[1]], ())\n'
            'main(["papers", "friction", "--library", sys.argv[1]])')

    def search():
        return subprocess.run([sys.executable, '-c', code, folder], capture_output=True, text=True, timeout=60)

    said = search().stderr
    assert 'has no index yet' in said and 'as somebody who may write there' in said
    Library(folder).refresh()
    searched = search()
    assert 'Pushing a block' in searched.stdout and searched.stderr == ''


def test_a_broken_index_is_made_anew(folder):
    library = Library(folder)
    library.refresh()
    index = folder / papers._INDEX
    index.write_bytes(b'This was an index once. ' * 200)
    assert library.refresh().read == 1 and library.search('friction')
    with closing(sqlite3.connect(index)) as connection:
        connection.execute('PRAGMA user_version = 99')      # of another version of the suite
    assert library.refresh().read == 1 and library.search('friction')


def test_documents_are_added_once(folder, tmp_path, capsys):
    more = tmp_path / 'more'
    (more / 'deep').mkdir(parents=True)
    (more / 'deep' / 'notes.md').write_text('# Other notes\n\ngripper force\n')
    (more / 'picture.png').write_bytes(b'x')
    library = ['--library', str(folder)]
    assert main(['papers', '--add', str(more), *library]) == 0 and '1 added' in capsys.readouterr().out
    assert main(['papers', '--add', str(more), *library]) == 0 and 'there already' in capsys.readouterr().out
    assert main(['papers', 'gripper', 'force', *library]) == 0
    assert 'more/deep/notes.md p. 1 of 1' in capsys.readouterr().out
    (more / 'notes.md').write_text('# Not the same\n')
    Library(folder).add(more / 'notes.md')
    assert (folder / 'notes-2.md').read_text() == '# Not the same\n'
    assert main(['papers', '--add', str(more / 'picture.png'), *library]) == 2 and '.pdf' in capsys.readouterr().err


def test_a_library_that_is_not_there_is_an_error_with_a_way_out(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv('ENPIRE_PAPERS', str(tmp_path / 'nowhere'))
    assert main(['papers', 'x']) == 2
    assert 'nowhere: no such folder; `enpire papers --add' in capsys.readouterr().err


def test_markdown_is_divided_at_headings():
    text = markdown_text('# A title\n' + 'word ' * 400 + '\n## Second\n```\n# no heading\n```\n' + 'word ' * 20)
    assert text.title == 'A title' and len(text.pages) == 2
    assert text.pages[1].startswith('## Second') and '# no heading' in text.pages[1]


# --- arXiv ---

ANSWER = '''<?xml version="1.0" encoding="UTF-8"?>
<feed xmlns="http://www.w3.org/2005/Atom"><title>ArXiv Query</title>
<entry><id>http://arxiv.org/abs/0000.00001v2</id><published>2020-03-04T00:00:00Z</published>
<title>A title
  of two lines</title><summary> What it is about. </summary>
<author><name>A. One</name></author><author><name>B. Two</name></author></entry></feed>'''


@pytest.fixture
def arxiv(monkeypatch, tmp_path):
    """A server in the place of arXiv: its answer (status, body), None for none at all; asked: the paths of requests."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            server.asked.append(self.path)
            if server.answer is None:
                server.over.wait(20)
                return
            status, body = server.answer
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(('127.0.0.1', 0), Handler)
    server.answer, server.asked, server.over = (200, ANSWER), [], threading.Event()
    server.url = f'http://127.0.0.1:{server.server_port}/api/query'
    monkeypatch.setenv('ENPIRE_ARXIV', server.url)
    monkeypatch.setenv('no_proxy', '127.0.0.1')
    monkeypatch.setattr(papers.tempfile, 'gettempdir', lambda: str(tmp_path))
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield server
    server.over.set()
    server.shutdown()
    server.server_close()


def test_arxiv_is_asked_once_and_only_when_asked_for(arxiv, folder, capsys):
    assert main(['papers', 'friction', '--library', str(folder)]) == 0 and arxiv.asked == []
    capsys.readouterr()
    assert main(['papers', 'residual', 'policy', '--arxiv', '--limit', '3']) == 0
    assert capsys.readouterr().out == ('0000.00001v2  A title of two lines (A. One, B. Two, 2020)\n'
                                       '    What it is about.\n')
    asked, = arxiv.asked
    assert 'search_query=all%3Aresidual+AND+all%3Apolicy' in asked and 'max_results=3' in asked


@pytest.mark.parametrize('answer, said', [
    (None, 'within 0.2 s|no answer'), ((429, ''), 'busy .HTTP 429.'), ((500, ''), 'HTTP 500'),
    ((200, '<html>Log in'), 'no list of papers'),
    ((200, '<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>'), 'no list of papers'),
    ((200, ANSWER.replace('A title\n  of two lines', 'Error')), 'refuses that: What it is about')])
def test_an_answer_of_no_use_is_one_line(arxiv, answer, said):
    arxiv.answer = answer
    with pytest.raises(ArxivError, match=said) as error:
        search_arxiv('x', 3, arxiv.url, timeout=0.2 if answer is None else 5.0)
    assert '\n' not in str(error.value)


def test_without_a_network_the_library_is_pointed_to():
    with pytest.raises(ArxivError, match='cannot be reached .* the local library works without it'):
        search_arxiv('x', 3, 'http://127.0.0.1:9/api/query')


def test_requests_to_arxiv_keep_their_distance(arxiv, tmp_path, monkeypatch):
    waited = []
    monkeypatch.setattr(papers.time, 'sleep', waited.append)
    library = Library(tmp_path)
    library.ask_arxiv('one')
    library.ask_arxiv('two')
    assert waited[0] == 0.0 and 2.0 < waited[1] <= papers.PAUSE
