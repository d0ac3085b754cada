from setuptools import find_packages, setup

PACKAGE = 'enpire_reward'

setup(
    name=PACKAGE,
    version='0.1.0',
    packages=find_packages(include=[PACKAGE, f'{PACKAGE}.*']),
    data_files=[
        ('share/ament_index/resource_index/packages', [f'resource/{PACKAGE}']),
        (f'share/{PACKAGE}', ['package.xml']),
    ],
    zip_safe=False,
    maintainer='ENPIRE for ROS 2 maintainers',
    maintainer_email='maintainers@enpire-ros2.org',
    description='The verdict of ENPIRE for ROS 2',
    license='Apache-2.0',
    entry_points={'console_scripts': [
        'success_detector = enpire_reward.success_detector_node:main',
    ]},
)
