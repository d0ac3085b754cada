"""The wheel interfaces are wire-identical to Kilted's control_msgs and tf2_msgs: same type hashes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from ament_index_python.packages import get_package_share_directory

ROOT = Path(__file__).resolve().parents[2]

# RIHS01 hashes of the real packages in ROS 2 Kilted.
KILTED = {
    'control_msgs/action/FollowJointTrajectory': 'ff29901b2693f5deb847e96084a1c2cdb26e70b7c847be21859b70a55fb29cf0',
    'control_msgs/msg/JointTolerance': 'c254f9cece0f3b733017b6990fd46d1326e25242d6b8844398c97d9a88e7d648',
    'control_msgs/msg/JointComponentTolerance':
        '739ea7566931944d33830fa10f1bf5e7a7fbdc3172bce7a7eaac642bd6e3ffa4',
    'control_msgs/action/GripperCommand': 'e17c0e644eccf14bea84a0a93e0977182872c2eb7873ca6694900059b46dbc84',
    'control_msgs/msg/GripperCommand': '57eb8f326c9889ca8bb34ead82cc94cc09bf6bc5c3b6c09546dca3a00b589890',
    'control_msgs/action/ParallelGripperCommand':
        'adfd3c1ebe8abc38ebcc0e454b6423d291d4010dd5697d14eca5b9be4726ae18',
    'tf2_msgs/msg/TFMessage': 'e369d0f05a23ae52508854b66f6aa0437f3449d652e8cbf22d5abe85d020f087',
}


def share_of_our_subset(package: str) -> Path:
    share = Path(get_package_share_directory(package))
    if ROOT not in share.parents:
        pytest.skip(f'the real {package} is installed ({share}), so our subset of it is not built')
    return share


@pytest.mark.parametrize('name', KILTED)
def test_subset_has_the_hash_of_the_real_type(name):
    package, kind, type_name = name.split('/')
    description = json.loads((share_of_our_subset(package) / kind / f'{type_name}.json').read_text())
    hashes = {entry['type_name']: entry['hash_string'] for entry in description['type_hashes']}
    assert hashes[name] == f'RIHS01_{KILTED[name]}'


def test_every_type_of_the_subsets_is_compared():
    folder = ROOT / 'enpire_bringup' / 'wheel_interfaces'
    defined = {f'{file.parents[1].name}/{file.parent.name}/{file.stem}'
               for kind in ('msg', 'action') for file in folder.glob(f'*/{kind}/*.{kind}')}
    assert defined == set(KILTED)


def test_a_plain_colcon_build_does_not_see_the_subsets():
    assert (ROOT / 'enpire_bringup' / 'wheel_interfaces' / 'COLCON_IGNORE').exists()
