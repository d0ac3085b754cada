import numpy as np

from enpire_reward.observation import FrameAssembler, ObjectView

VIEW = ObjectView(np.array([0.3, 0.1, 0.5]), True, 0.0004)
MS = 1_000_000


def test_a_frame_is_complete_when_every_object_has_its_pose():
    frames = FrameAssembler(('t_block', 'box'))
    frames.add_pose(100 * MS, 't_block', VIEW)
    assert frames.take(100 * MS) is None
    frames.add_pose(100 * MS, 'box', VIEW)
    observation = frames.take(100 * MS)
    assert observation['time'] == 0.1 and observation['t_block']['visible'] and 'box' in observation
    assert frames.take(100 * MS) is None


def test_an_image_is_waited_for_when_the_program_wants_it():
    frames = FrameAssembler(('t_block',))
    frames.add_pose(100 * MS, 't_block', VIEW)
    assert frames.take(100 * MS, ('image',)) is None
    frames.add_image(100 * MS, 'image', np.ones((2, 2, 3), np.uint8))
    assert frames.take(100 * MS, ('image',))['image'].shape == (2, 2, 3)


def test_a_depth_image_is_waited_for_too():
    frames = FrameAssembler(('t_block',))
    frames.add_pose(100 * MS, 't_block', VIEW)
    frames.add_image(100 * MS, 'image', np.ones((2, 2, 3), np.uint8))
    assert frames.take(100 * MS, ('image', 'depth')) is None
    frames.add_image(100 * MS, 'depth', np.ones((2, 2), np.float32))
    assert {'image', 'depth'} <= set(frames.take(100 * MS, ('image', 'depth')))


def test_a_frame_whose_image_was_lost_is_overtaken():
    frames = FrameAssembler(('t_block',))
    for stamp in (100 * MS, 133 * MS):
        frames.add_pose(stamp, 't_block', VIEW)
    frames.add_image(133 * MS, 'image', np.ones((2, 2, 3), np.uint8))
    assert frames.take(133 * MS, ('image',))
    assert frames.overtaken(133 * MS) == [100 * MS]
    assert frames.overtaken(133 * MS) == []


def test_what_waits_is_bounded():
    frames = FrameAssembler(('t_block', 'never_seen'))
    for n in range(1000):
        frames.add_pose(n, 't_block', VIEW)
        frames.add_image(n, 'image', np.zeros(1))
    assert len(frames._poses) < 20 and len(frames._images) < 20


def test_an_object_of_another_camera_has_its_newest_pose():
    frames = FrameAssembler(('t_block',), ('tray',))
    frames.add_pose(100 * MS, 't_block', VIEW)
    assert not frames.take(100 * MS)['tray']['visible']
    frames.add_pose(103 * MS, 'tray', VIEW)
    frames.add_pose(133 * MS, 't_block', VIEW)
    assert frames.take(133 * MS)['tray']['visible']
