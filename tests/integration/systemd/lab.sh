#!/bin/bash
# lab.sh start|exec|stop DIR [COMMAND...]: boots the machine's own systemd as PID 1 of fresh namespaces, over a
# throw-away overlay of /. Nothing of the machine is changed. Needs root.
#
#   DIR/units/           becomes /etc/systemd/system
#   BIND="src:dst ..."   folders to bring in, read-only
#
# Exit status 77: it cannot run here (no root, no systemd, no cgroups of version 2, no overlays), so skip.
set -eu
command=$1 dir=$(realpath -m "$2")
shift 2

start() {
    [ "$(id -u)" = 0 ] || { echo "needs root" >&2; exit 77; }
    [ -x /lib/systemd/systemd ] || { echo "systemd is not installed" >&2; exit 77; }
    cgroups=$(awk '$3 == "cgroup2" { print $2; exit }' /proc/mounts)
    [ -n "$cgroups" ] || { echo "no cgroups of version 2" >&2; exit 77; }
    mkdir -p "$dir/units" "$dir/root"
    # A cgroup of its own, or systemd would take over the machine's.
    cgroup=$cgroups/lab.$$
    mkdir "$cgroup" 2>"$dir/log" || { cat "$dir/log" >&2; exit 77; }
    echo "$cgroup" >"$dir/cgroup"
    CGROUP=$cgroup LAB_DIR=$dir setsid bash -c 'echo $BASHPID >"$CGROUP/cgroup.procs"
        exec unshare --cgroup --mount --uts --ipc --net --pid --fork --kill-child --propagation private \
            bash -eu "$0" inner "$LAB_DIR"' "$(realpath "$0")" </dev/null >"$dir/log" 2>&1 &
    outer=$!
    for _ in $(seq 1200); do
        sleep .05
        if ! pid=$(pgrep -P $outer); then
            kill -0 $outer 2>/dev/null && continue
            echo "it does not boot: $(cat "$dir/log")" >&2
            rmdir "$cgroup"
            exit 77
        fi
        case $(nsenter -t "$pid" -m -p systemctl is-system-running 2>/dev/null) in
        running | degraded)
            echo "$pid" >"$dir/pid"
            exit 0
            ;;
        esac
    done
    kill -9 "$pid"
    echo "it does not come up: $(cat "$dir/log")" >&2
    exit 77
}

stop() {
    kill -9 "$(cat "$dir/pid")" || true # the death of a namespace's init ends all processes in it
    for _ in $(seq 100); do
        find "$(cat "$dir/cgroup")" -depth -type d -exec rmdir {} + 2>/dev/null && exit 0
        sleep .1
    done
    exit 1
}

inner() {
    root=$dir/root
    mount -t tmpfs -o mode=755,size=2g lab "$root"
    mkdir "$root/up" "$root/work" "$root/mnt"
    mount -t overlay -o "lowerdir=/,upperdir=$root/up,workdir=$root/work" lab "$root/mnt"
    root=$root/mnt

    mount -t proc proc "$root/proc"
    for path in sys sysrq-trigger irq bus; do
        [ -e "$root/proc/$path" ] || continue
        mount --bind "$root/proc/$path" "$root/proc/$path"
        mount -o remount,bind,ro "$root/proc/$path"
    done
    mount -t sysfs -o ro sys "$root/sys"
    mount -t cgroup2 cgroup "$root/sys/fs/cgroup"

    mount -t tmpfs -o mode=755 dev "$root/dev" # no disks, no kernel log
    mkdir "$root/dev/pts" "$root/dev/shm"
    for device in null zero full random urandom tty; do
        touch "$root/dev/$device"
        mount --bind /dev/$device "$root/dev/$device"
    done
    mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 pts "$root/dev/pts"
    ln -s pts/ptmx "$root/dev/ptmx"
    ln -s /proc/self/fd "$root/dev/fd"
    ln -s fd/0 "$root/dev/stdin"
    ln -s fd/1 "$root/dev/stdout"
    ln -s fd/2 "$root/dev/stderr"
    for path in dev/shm tmp; do mount -t tmpfs -o mode=1777 tmp "$root/$path"; done
    mount -t tmpfs -o mode=755 run "$root/run"
    mkdir -p "$root/run/systemd/unit-root"
    : >"$root/etc/machine-id"

    # Of the machine's own units only the journal starts.
    units=$root/etc/systemd/system
    mount -t tmpfs -o mode=755 units "$units"
    ln -s /dev/null "$units/tmp.mount"
    for wants in "$root"/usr/lib/systemd/system/{sysinit,basic,multi-user,sockets,timers,local-fs}.target.wants; do
        [ ! -d "$wants" ] || mount -t tmpfs none "$wants"
    done
    journal="systemd-journald.socket systemd-journald.service"
    printf '[Unit]\nDefaultDependencies=no\nWants=%s\nAfter=%s\n' "$journal" "$journal" >"$units/sysinit.target"
    printf '[Unit]\nRequires=basic.target\nAfter=basic.target\nAllowIsolate=yes\n' >"$units/lab.target"
    cp -r "$dir/units/." "$units/"

    for bind in ${BIND:-}; do
        mkdir -p "$root${bind##*:}"
        mount --bind "${bind%%:*}" "$root${bind##*:}"
        mount -o remount,bind,ro "$root${bind##*:}"
    done
    cd "$root"
    mkdir -p .old
    pivot_root . .old
    cd /
    umount -l /.old
    dropped=-sys_module,-sys_time,-sys_rawio,-syslog,-wake_alarm,-mac_admin,-mac_override
    exec setpriv --bounding-set $dropped,-audit_control,-audit_read,-audit_write \
        env -i container=lab PATH=/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 \
        /lib/systemd/systemd --system --unit=lab.target --show-status=no
}

case $command in
start) start ;;
stop) stop ;;
inner) inner ;;
exec)
    exec nsenter -t "$(cat "$dir/pid")" -m -u -i -n -p -C \
        env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 HOME=/root "$@"
    ;;
*)
    echo "lab.sh start|exec|stop DIR [COMMAND...]" >&2
    exit 2
    ;;
esac
