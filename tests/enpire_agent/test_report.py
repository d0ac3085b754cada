import json
import re
from html.parser import HTMLParser

import pytest
from recorded_campaign import film, record_campaign

from enpire_agent.cli import main
from enpire_agent.fleet_log import FleetLog
from enpire_agent.report import MAX_PAGE_BYTES, write_report
from enpire_agent.score import success_interval
from enpire_agent.search_and_gate import Compared, Share, remark, solved_by
from enpire_agent.shown_trials import MAX_VIDEO_BYTES
from enpire_agent.station_run import read_runs
from enpire_bringup.configuration import ConfigurationError

VOID = {'meta', 'link', 'br', 'img'}


class Element(dict):
    """Attributes of an element; `tag`, `text` (with that of everything in it)."""

    def __init__(self, tag, attributes, pieces):
        super().__init__(attributes)
        self.tag, self._pieces, self._from, self.end = tag, pieces, len(pieces), None

    @property
    def text(self):
        return ''.join(self._pieces[self._from:self.end])


class Page(HTMLParser):
    """A page as its elements in their order; raises when one is closed that is not the innermost open one."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.elements, self._open, self._pieces = [], [], []
        self.feed(text)
        self.close()
        assert self._open == [], 'every element is closed'

    def handle_starttag(self, tag, attributes):
        self.elements.append(Element(tag, attributes, self._pieces))
        if tag not in VOID:
            self._open.append(self.elements[-1])

    def handle_startendtag(self, tag, attributes):
        self.elements.append(Element(tag, attributes, self._pieces))

    def handle_endtag(self, tag):
        if tag not in VOID:
            element = self._open.pop()
            assert element.tag == tag
            element.end = len(self._pieces)

    def handle_data(self, data):
        self._pieces.append(data)

    def all(self, tag, **attributes):
        return [element for element in self.elements if element.tag == tag
                and all(element.get(name.strip('_'), '') == value for name, value in attributes.items())]

    def one(self, tag, **attributes):
        element, = self.all(tag, **attributes)
        return element

    def figures(self):
        """Name -> (value, note) of the figures at the top."""
        texts = [[self.elements[k + n].text for n in (1, 2, 3)] for k, element in enumerate(self.elements)
                 if element.get('class') == 'card' and self.elements[k + 1].get('class') == 'name']
        return {name: (plain(value), plain(note)) for name, value, note in texts}


def rows_of(page):
    """The iterations' rows."""
    return [element for element in page.all('tbody') if 'id' in element]


def plain(text):
    return ' '.join(text.replace('\xa0', ' ').split())


def compared_rows(page):
    """Texts of the cells of the table of search and gate scores."""
    table = page.one('table', class_='compared')
    start = page.elements.index(table)
    end = next((k for k in range(start + 1, len(page.elements)) if page.elements[k].tag == 'h2'), None)
    cells = [plain(element.text) for element in page.elements[start:end] if element.tag == 'td']
    return [cells[k:k + 3] for k in range(0, len(cells), 3)]


def _share(measured):
    low, high = success_interval(measured.successes, measured.trials)
    return (f'{100 * measured.successes / measured.trials:.0f} % {measured.successes} of {measured.trials} fresh seeds '
            f'95 % interval {100 * low:.0f} to {100 * high:.0f} %')


def report(directory):
    return Page(write_report(directory).read_text())


@pytest.fixture(scope='module')
def two_stations(tmp_path_factory):
    """Two stations of eight iterations, filmed, and the page about them."""
    directory = record_campaign(tmp_path_factory.mktemp('runs') / 'c', stations=2, decisions=(
        'revert', 'keep', 'revert', 'adopt', 'revert', 'revert', 'keep', 'revert'))
    for run in read_runs(directory):
        for trial_id in run.lines:
            film(run.directory / 'trials' / trial_id)
    return directory, report(directory)


def test_the_figures_are_those_of_the_ledger(two_stations):
    directory, page = two_stations
    runs = read_runs(directory)
    figures = page.figures()
    for name, measured in (('Starting recipe', runs[0].baseline), ('Best recipe', max(
            (run.gate for run in runs), key=lambda gate: gate.successes))):
        low, high = success_interval(measured.successes, measured.trials)
        assert figures[name] == (f'{100 * measured.successes / measured.trials:.0f} %',
                                 f'{measured.successes} of {measured.trials} fresh seeds; 95 % interval '
                                 f'{100 * low:.0f} to {100 * high:.0f} %')
    assert figures['Hypotheses'] == ('16', '5 kept, 1 adopted, 10 rejected')
    assert figures['Trials'][0] == str(sum(len((run.directory / 'ledger.jsonl').read_text().splitlines())
                                           for run in runs))
    assert figures['Robot utilization'][0] == '90 %'


def test_every_iteration_is_a_row_with_its_hypothesis_decision_and_diff(two_stations):
    directory, page = two_stations
    for run in read_runs(directory):
        for iteration in run.state.iterations:
            row = page.one('tbody', id=f'{run.name}-{iteration.number}')
            text = plain(row.text)
            assert iteration.hypothesis in text and iteration.commit[:10] in text and iteration.reason in text
            assert f'{iteration.successes} of {iteration.trials} before: 5 of 20' in text
            word = {'reverted': 'rejected'}.get(iteration.state, 'adopted' if iteration.adopts else 'kept')
            assert f'{iteration.number} {word} ' in text
            assert 'diff: +3 −3 lines' in text and f'+{"x" * 30} {iteration.number} 2' in row.text


def test_best_and_worst_trial_are_shown_as_video_and_as_pictures(two_stations):
    directory, page = two_stations
    lines = {line['trial_id']: line for run in read_runs(directory) for line in run.lines.values()}
    best = min((line for line in lines.values() if line['outcome'] == 'SUCCESS'), key=lambda line: line['duration'])
    worst = max((line for line in lines.values()
                 if line['outcome'] not in ('SUCCESS', 'RESET_FAILED', 'ABORTED', 'INVALID')),
                key=lambda line: line['position_error'])
    videos, pictures = page.all('video'), page.all('img')
    assert len(videos) == len(pictures) == 2
    for title, line, video, picture in zip(('Best trial', 'Worst trial'), (best, worst), videos, pictures):
        assert video['src'].startswith('data:video/mp4') and picture['src'].startswith('data:image/png')
        for text in (video['aria-label'], picture['alt']):
            assert text.startswith(title) and f'{line["outcome"]} after {line["duration"]:.1f} s' in text
        assert (directory / 'report' / f'{title.lower().replace(" ", "_")}.png').read_bytes().startswith(b'\x89PNG')


def test_charts_stand_on_the_page_for_wide_and_narrow_windows_with_a_text_and_as_png(two_stations):
    directory, page = two_stations
    labels = [svg['aria-label'] for svg in page.all('svg', class_='wide')]
    assert labels == [svg['aria-label'] for svg in page.all('svg', class_='narrow')]
    assert [label.split(':')[0].split('.')[0] for label in labels] == [
        'Hill-climb curve', 'Idea tree', 'Outcomes of all trials', 'Mean robot utilization (MRU)']
    assert 'station_2: 2 kept, 1 adopted, 5 rejected.' in labels[1]
    for name in ('hill_climb', 'idea_tree', 'outcomes', 'robot_time'):
        assert (directory / 'report' / f'{name}.png').stat().st_size > 10_000


def test_the_page_needs_no_network_and_no_script(two_stations):
    directory, page = two_stations
    assert page.all('script') == []
    for element in page.elements:
        for name in ('src', 'href', 'poster', 'action', 'data'):
            assert element.get(name, '#').startswith(('#', 'data:')), element
    style = page.one('style').text
    assert 'url(' not in style and '@import' not in style
    text = (directory / 'report.html').read_text()
    assert set(re.findall(r'https?://[^"\s<]+', text)) <= {'http://www.w3.org/2000/svg'}


def test_links_within_the_page_lead_somewhere(two_stations):
    _, page = two_stations
    targets = {element['id'] for element in page.elements if 'id' in element}
    links = {element['href'] for element in page.all('a')}
    assert links and {link[1:] for link in links} <= targets


def test_texts_of_a_recipe_cannot_change_the_page(tmp_path):
    text = '<script>alert(1)</script></td></table>"\' onload="x" {{ 7 * 7 }}'
    page = report(record_campaign(tmp_path / 'c', hypothesis=text))
    assert page.all('script') == [] and not any('onload' in element for element in page.elements)
    assert text in page.one('tbody', id='station_1-2').text


def test_a_campaign_that_runs_says_so_and_what_it_tries(tmp_path):
    page = report(record_campaign(tmp_path / 'c', decisions=('keep', 'run'), running=True))
    assert page.one('h1').text == 'push_t: research goes on'
    assert 'station_1 searches, iteration 2.' in plain(page.one('main').text)
    assert 'on trial' in page.one('tbody', id='station_1-2').text
    assert page.figures()['Best recipe so far'][1].endswith('of 4 trials so far')


def test_a_campaign_at_its_very_beginning_has_a_page(tmp_path):
    directory = record_campaign(tmp_path / 'c', decisions=(), gate=0, running=True)
    (directory / 'station_1' / 'ledger.jsonl').unlink()
    page = report(directory)
    assert page.figures()['Starting recipe'] == ('not yet', 'not measured')
    assert 'no ledger there' in page.one('main').text


def test_an_attempt_at_the_gate_that_ended_early_is_no_result(tmp_path):
    directory = record_campaign(tmp_path / 'c', decisions=('keep', 'revert'))
    file = directory / 'station_1' / 'campaign.json'
    state = json.loads(file.read_text())
    attempt = {**state['gate'], 'trials': 9, 'successes': 8, 'outcomes': {'SUCCESS': 8, 'TIMEOUT': 1}}
    file.write_text(json.dumps({**state, 'gate': attempt, 'finished': '', 'phase': 'search'}))
    page = report(directory)
    assert 'Best recipe' not in page.figures() and 'Best recipe so far' in page.figures()
    assert 'iteration 1 on fresh seeds, until the first failure: 8 of 9' in page.one('main').text
    name, searched, fresh = compared_rows(page)[-1]
    assert name == 'iteration 1, idea 1' and ' of 4 search seeds' in searched
    assert fresh.startswith('89 % 8 of 9 fresh seeds') and fresh.endswith('ended by its first failure')
    assert 'Not solved yet: ' in page.one('main').text


@pytest.mark.parametrize('searched, fresh, said', [
    ((24, 24), (20, 50), 'does worse than on those that chose it'), ((6, 6), (45, 50), 'intervals overlap'),
    ((10, 24), (50, 50), 'even better')])
def test_the_two_scores_of_the_best_recipe_are_held_against_each_other(searched, fresh, said):
    text = remark([Compared('start', None, Share(1, 50)), Compared('best', Share(*searched), Share(*fresh), True)])
    assert said in text


def test_a_solved_campaign_says_so_on_top(tmp_path):
    directory = record_campaign(tmp_path / 'c', decisions=('keep',) * 7, gate=2, trials=1)
    runs = read_runs(directory)
    result = solved_by(runs)
    assert result.yes and runs[0].gate.successes == 2
    assert 'Solved: 2 of 2 consecutive on fresh seeds, 95 % interval 16 to 100 %.' in report(directory).one('main').text


def test_a_campaign_as_it_is_run_can_be_read(make_campaign):
    campaign, _, _ = make_campaign()
    state = campaign.run()
    page = report(campaign.directory.parent)
    assert len(rows_of(page)) == len(state.iterations)
    assert page.figures()['Trials'][0] == str(state.trials)
    searched = [success for success, _ in state.best.results.values()]
    start, *early, best = compared_rows(page)
    assert start == ['starting recipe', 'not tried on search seeds', _share(state.baseline)]
    assert len(early) == len(state.gates) == 0
    assert best[0].startswith(f'best recipe, iteration {state.best.iteration}, ')
    assert best[1].startswith(f'{100 * sum(searched) / len(searched):.0f} % {sum(searched)} of {len(searched)} search')
    assert best[2] == _share(state.gate)
    assert plain(page.one('main').text).count(f'{str(state.finished).removeprefix("not solved: ").split(";")[0]}') == 2


def test_recipes_that_travelled_and_conflicts_are_told(tmp_path):
    directory = record_campaign(tmp_path / 'c')
    log = FleetLog(directory / 'station_1')
    log.append('announced', commit='a' * 40)
    log.append('conflict', commit='b' * 40, station='station_2', how='cherry_pick', reason='both changed <policy.py>')
    text = plain(report(directory).one('main').text)
    assert '1 announced to the fleet.' in text
    assert 'conflict, not adopted (cherry pick) bbbbbbbbbb of station_2 both changed <policy.py>' in text


def test_without_a_better_recipe_none_is_claimed(tmp_path):
    page = report(record_campaign(tmp_path / 'c', decisions=('revert', 'revert')))
    assert page.one('h1').text == 'push_t: no hypothesis was better than the starting recipe'
    assert page.figures()['Best recipe'] == ('the start', 'no hypothesis was kept')


def test_intervals_that_overlap_are_no_proof_of_an_improvement(tmp_path):
    few = report(record_campaign(tmp_path / 'few', decisions=('keep',), gate=4))
    many = report(record_campaign(tmp_path / 'many', decisions=('keep',) * 6, gate=50))
    assert 'more trials are needed to be sure' in few.one('main').text
    assert 'the improvement is more than luck' in many.one('main').text


def test_a_campaign_recorded_before_the_time_was_divided_shows_what_it_knows(tmp_path):
    page = report(record_campaign(tmp_path / 'c', divided=False))
    label = page.all('svg', class_='wide')[-1]['aria-label']
    assert 'in trials and resets' in label and 'not told apart' in label
    assert page.figures()['Robot utilization'][0] == '90 %'


def test_a_broken_ledger_is_said_on_the_page(tmp_path):
    directory = record_campaign(tmp_path / 'c')
    ledger = directory / 'station_1' / 'ledger.jsonl'
    ledger.write_text(ledger.read_text().replace('TIMEOUT', 'SUCCESS', 1))
    assert 'was changed: its content does not give its hash' in report(directory).one('main').text


def test_a_campaign_whose_repository_is_gone_keeps_its_rows(tmp_path):
    directory = record_campaign(tmp_path / 'c')
    (directory / 'station_1' / 'recipe' / '.git').rename(tmp_path / 'gone')
    assert len(rows_of(report(directory))) == 3


def test_a_page_of_eight_stations_and_300_iterations_each_stays_below_its_bound(tmp_path):
    decisions = tuple('keep' if k % 17 == 16 else 'adopt' if k % 43 == 42 else 'revert' for k in range(300))
    hypothesis = 'Pushing "slower" <leaves> the T where it was & turns it ' * 20
    directory = record_campaign(tmp_path / 'c', stations=8, decisions=decisions, trials=2, gate=3, diff_lines=40,
                                line_width=200, hypothesis=hypothesis)
    page = report(directory)
    videos = 2 * MAX_VIDEO_BYTES * 4 / 3
    size = (directory / 'report.html').stat().st_size
    assert size + videos < MAX_PAGE_BYTES, size
    assert len(rows_of(page)) == 2400
    kept = page.one('tbody', id='station_8-17').text
    assert '+' + 'x' * 200 in kept, 'the diffs of kept recipes come first'
    left_out = page.one('tbody', id='station_8-1').text
    assert '+' + 'x' * 200 not in left_out and 'show ' in left_out, 'Git tells the rest'
    assert all(float(svg['viewbox'].split()[3]) < 1500 for svg in page.all('svg', class_='wide'))


def test_the_verb_says_where_the_page_and_the_charts_are(tmp_path, monkeypatch, capsys):
    directory = record_campaign(tmp_path / 'c', decisions=('revert',))
    monkeypatch.setenv('ENPIRE_RUNS', str(tmp_path))
    assert main(['report', 'c']) == 0
    page, charts = capsys.readouterr().out.splitlines()
    assert page == str(directory / 'report.html') and charts.split(':')[0] == str(directory / 'report')


def test_a_folder_without_a_campaign_is_one_clear_error(tmp_path):
    with pytest.raises(ConfigurationError, match='no campaign in it'):
        write_report(tmp_path)


def test_a_file_that_is_no_campaign_is_one_clear_error(tmp_path):
    (tmp_path / 'station_1').mkdir()
    (tmp_path / 'station_1' / 'campaign.json').write_text('{"settings": 3}')
    with pytest.raises(ConfigurationError, match='campaign.json: is not the state of a campaign'):
        write_report(tmp_path)
