# Sourced by ./enpire and the Makefile's recipes: sets up what is missing, then gives the environment of the suite.
# Usage: source environment.bash ROOT COMMAND...   (COMMAND: what to start again after a set-up)
enpire_root=$1
shift

enpire_ros() {
    # The setup.bash of the ROS 2 installation to use: the sourced one, else the one used before; empty: wheels.
    local prefix prefixes last=
    if [ -n "${ROS_DISTRO:-}" ]; then
        IFS=: read -ra prefixes <<< "${AMENT_PREFIX_PATH:-}"
        for prefix in "${prefixes[@]}"; do
            [ -f "$prefix/setup.bash" ] && last=$prefix/setup.bash
        done
    elif [ -f "$enpire_root/.venv/enpire_ros" ]; then
        last=$(< "$enpire_root/.venv/enpire_ros")
        [ -f "$last" ] || last=
    fi
    echo "$last"
}

enpire_fingerprint() {
    # Everything that the set-up reads; file names count too, so that a new message or launch file is noticed.
    (
        cd "$enpire_root"
        echo "$enpire_root $enpire_ros_setup"
        set +o pipefail
        find enpire_bringup/{launch/,config,description,rviz,tasks} -type f -not -name '*.pyc' 2>/dev/null | LC_ALL=C sort
        find apt.txt constraints.txt requirements*.txt colcon.meta enpire_msgs enpire_bringup/{setup,wheel_interfaces} \
            enpire_*/{setup.py,setup.cfg,package.xml} -type f -not -name '*.pyc' -print0 2>/dev/null |
            LC_ALL=C sort -z | xargs -0 sha256sum
    ) | sha256sum | cut -d ' ' -f 1
}

enpire_python() {
    # The Python of the ROS 2 installation, else the first one that the wheels exist for. Of a virtual environment
    # that is active the Python it was made from.
    local name executable='import sys; print(getattr(sys, "_base_executable", sys.executable))'
    if [ -n "$enpire_ros_setup" ] && python3 -c 'import rclpy' 2>/dev/null; then
        python3 -c "$executable"
        return
    fi
    for name in python3.11 python3.12 python3; do
        if "$name" -c 'import sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))' 2>/dev/null; then
            "$name" -c "$executable"
            return
        fi
    done
    echo 'enpire: found neither Python 3.11 nor 3.12, which the ROS 2 wheels need; type this (Debian 12: python3.11,' \
        'Ubuntu 24.04: python3.12), then the same command again:' >&2
    printf '\n    sudo apt-get install -y python3.11 python3.11-venv python3.11-dev\n\n' >&2
    return 1
}

enpire_ros_setup=$(enpire_ros)
enpire_current=$(enpire_fingerprint)
if [ "$enpire_current" != "$(cat "$enpire_root/.venv/enpire_fingerprint" 2>/dev/null)" ]; then
    if [ -n "$enpire_ros_setup" ] && [ -z "${ROS_DISTRO:-}" ]; then
        set +u
        source "$enpire_ros_setup"
        set -u
    fi
    enpire_base=$(enpire_python) || exit 2
    # exec: the set-up is this very process, so that Ctrl-C or kill ends all of it.
    exec "$enpire_base" "$enpire_root/enpire_bringup/setup/set_up.py" --root "$enpire_root" \
        --fingerprint "$enpire_current" --ros "$enpire_ros_setup" -- "$@"
fi
source "$enpire_root/.venv/enpire_environment.bash"
unset -f enpire_ros enpire_fingerprint enpire_python
unset enpire_current enpire_ros_setup
