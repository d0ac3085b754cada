from setuptools import find_packages, setup

PACKAGE = 'enpire_agent'

setup(
    name=PACKAGE,
    version='0.1.0',
    packages=find_packages(include=[PACKAGE, f'{PACKAGE}.*']),
    package_data={PACKAGE: ['templates/*']},
    data_files=[
        ('share/ament_index/resource_index/packages', [f'resource/{PACKAGE}']),
        (f'share/{PACKAGE}', ['package.xml']),
        ('bin', ['bin/enpire']),     # colcon puts bin on PATH, which lib/enpire_agent is not
    ],
    zip_safe=False,
    maintainer='ENPIRE for ROS 2 maintainers',
    maintainer_email='maintainers@enpire-ros2.org',
    description='Trials, research and fleet of ENPIRE for ROS 2',
    license='Apache-2.0',
    entry_points={'console_scripts': [
        'trial_runner = enpire_agent.trial_runner_node:main',
        'supervisor = enpire_agent.supervisor_node:main',
        'git_bridge = enpire_agent.git_bridge_node:main',
    ]},
)
