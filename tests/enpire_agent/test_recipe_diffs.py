from recorded_campaign import record_campaign

from enpire_agent.recipe_diffs import MAX_LINES, MAX_WIDTH, read_diffs
from enpire_agent.station_run import read_runs


def diffs_of(directory):
    run, = read_runs(directory)
    commits = [iteration.commit for iteration in run.state.iterations]
    return [read_diffs(run.directory / 'recipe', commits)[commit] for commit in commits]


def test_a_diff_is_that_of_its_own_commit(tmp_path):
    for number, diff in enumerate(diffs_of(record_campaign(tmp_path / 'c')), 1):
        assert (diff.added, diff.removed) == (3, 3)
        assert [line for line in diff.lines if line.startswith('+x')] == [
            f'+{"x" * 30} {number} {k}' for k in range(3)]


def test_a_huge_diff_is_cut_but_counted(tmp_path):
    diff = diffs_of(record_campaign(tmp_path / 'c', decisions=('keep',), diff_lines=2000, line_width=100_000 // 20))[0]
    assert diff.added == diff.removed == 2000 and diff.total > 4000
    assert len(diff.lines) == MAX_LINES and max(map(len, diff.lines)) == MAX_WIDTH + 1
    assert diff.lines[-1].endswith('…')


def test_a_line_of_a_megabyte_is_one_line(tmp_path):
    diff = diffs_of(record_campaign(tmp_path / 'c', decisions=('keep',), diff_lines=1, line_width=10**6))[0]
    assert diff.added == diff.removed == 1


def test_a_folder_that_is_no_repository_has_no_diffs(tmp_path):
    assert read_diffs(tmp_path, ['0' * 40]) == {} == read_diffs(tmp_path / 'nowhere', ['0' * 40])
