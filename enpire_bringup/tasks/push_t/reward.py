"""Push-T is done when the T is seen to lie on the goal, and has not moved for a while."""

from enpire_reward.toolkit import StillnessTracker, abstain, check, judged, pose_difference


class Reward:
    """task: task.yaml as a dict. One instance judges every frame of a station, one after the other."""

    def __init__(self, task):
        goal, self.tolerance = task['goal'], task['tolerance']
        self.object = goal['object']
        self.goal = (*goal['xy'], goal['yaw'])
        self.stillness = StillnessTracker()

    def judge(self, observation):
        """outcome, reason and checks; position in m, yaw in rad, still in s, view 1 when the T is seen."""
        t_block = observation[self.object]
        view = check('view', float(t_block['visible']), 1.0, at_least=True)
        if not t_block['visible']:
            hidden = f': {100 * t_block["visible_fraction"]:.0f} % of it is seen' if t_block['occluded'] else ''
            return abstain(f'the T is not seen well enough{hidden}', [view])
        distance, turn = pose_difference(t_block['pose'], self.goal)
        still = self.stillness.update(observation['time'], t_block['pose'])
        return judged([
            view,
            check('position', distance, self.tolerance['position'], 'm'),
            check('yaw', turn, self.tolerance['yaw'], 'rad'),
            check('still', still, self.tolerance['still'], 's', at_least=True),
        ], done='the T lies on the goal and does not move')
