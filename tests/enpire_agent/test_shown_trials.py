import cv2
import numpy as np
from recorded_campaign import film, record_campaign

from enpire_agent.shown_trials import best_and_worst, film_strip
from enpire_agent.station_run import read_runs
from enpire_agent.trial_video import video_of


def filmed(directory, outcomes=None):
    """The runs of a campaign whose trials are filmed, all or those with certain outcomes."""
    runs = read_runs(directory)
    for run in runs:
        for trial_id, line in run.lines.items():
            if outcomes is None or line['outcome'] in outcomes:
                film(run.directory / 'trials' / trial_id, frames=4)
    return runs


def test_without_a_success_the_nearest_trial_is_the_best(tmp_path):
    runs = filmed(record_campaign(tmp_path / 'c', decisions=('revert',)), ('TIMEOUT', 'FAILURE'))
    for line in runs[0].lines.values():
        line['outcome'] = 'TIMEOUT' if line['outcome'] == 'SUCCESS' else line['outcome']
    best, worst = best_and_worst(runs)
    assert 'no trial succeeded' in best.why
    assert best.line['position_error'] < worst.line['position_error']


def test_when_every_trial_succeeded_the_slowest_is_the_worst(tmp_path):
    runs = filmed(record_campaign(tmp_path / 'c', decisions=('revert',), gate=5))
    for line in runs[0].lines.values():
        line['outcome'] = 'SUCCESS'
    best, worst = best_and_worst(runs)
    durations = [line['duration'] for line in runs[0].lines.values()]
    assert (best.line['duration'], worst.line['duration']) == (min(durations), max(durations))


def test_a_failure_that_was_not_measured_is_the_worst_only_where_none_was(tmp_path):
    runs = filmed(record_campaign(tmp_path / 'c', decisions=('revert',), gate=6))
    failures = [line for line in runs[0].lines.values() if line['outcome'] in ('TIMEOUT', 'FAILURE', 'POLICY_ERROR')]
    failures[0]['position_error'] = None
    assert best_and_worst(runs)[-1].line['position_error'] is not None
    for line in runs[0].lines.values():
        line['position_error'] = None
    worst = best_and_worst(runs)[-1]
    assert worst.line['outcome'] != 'SUCCESS' and 'was not measured' in worst.why


def test_trials_that_say_nothing_or_were_not_filmed_are_not_shown(tmp_path):
    directory = record_campaign(tmp_path / 'c')
    assert best_and_worst(read_runs(directory)) == []
    assert best_and_worst(filmed(directory, ('ABORTED', 'RESET_FAILED'))) == []


def test_a_strip_shows_the_trial_from_start_to_end(tmp_path):
    film(tmp_path, frames=20)
    strip = cv2.imdecode(np.frombuffer(film_strip(video_of(tmp_path)), np.uint8), cv2.IMREAD_COLOR)
    assert strip.shape == (150, 5 * 200 + 4 * 4, 3)
    blue = strip.astype(int)[75, :, 0] - strip.astype(int)[75, :, 2] > 60      # the square, which moves to the right
    middles = [blue[k * 204:k * 204 + 200].nonzero()[0].mean() for k in range(5)]
    assert middles == sorted(middles) and middles[-1] - middles[0] > 80


def test_a_video_that_is_too_large_leaves_its_pictures(tmp_path, monkeypatch):
    monkeypatch.setattr('enpire_agent.shown_trials.MAX_VIDEO_BYTES', 10)
    shown = best_and_worst(filmed(record_campaign(tmp_path / 'c', decisions=('revert',), gate=3)))
    assert shown and all(trial.video == b'' and trial.strip for trial in shown)


def test_what_is_no_video_has_no_strip(tmp_path):
    (tmp_path / 'video.mp4').write_bytes(b'no video')
    assert film_strip(tmp_path / 'video.mp4') == b''
