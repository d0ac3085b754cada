"""Trials, research and fleet of ENPIRE for ROS 2. `from enpire_agent import Station` is the way in for programs."""


def __getattr__(name: str):
    # On demand: most modules of this package need neither ROS nor what the client draws in.
    if name in ('Station', 'StationCallError'):
        from enpire_agent import remote_station
        return getattr(remote_station, name)
    raise AttributeError(f"module 'enpire_agent' has no attribute '{name}'")
