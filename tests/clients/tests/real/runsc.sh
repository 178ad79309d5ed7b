#!/bin/sh
# Debian's runsc (20221219) as containerd's shim for runc calls it.
#
# Its sandbox takes a namespace for the machine's own, and refuses it, where /proc/sys/net is there: hidden in mounts of its own.
[ -n "$WORKLOADNET_HIDDEN" ] || WORKLOADNET_HIDDEN=1 exec unshare --mount "$0" "$@"
mount -t tmpfs none /proc/sys/net

verb=
for word; do
    case "$word" in create | start | kill | delete | exec | state) verb=$word && break ;; esac
done
set -- runsc --platform=ptrace --ignore-cgroups "$@"
case "$verb" in
start)
    # What it leaves running would hold the shim's pipes open.
    "$@" >"/run/runsc-start.$$" 2>&1
    ;;
kill | delete)
    # The shim knows runc's words for what has ended already.
    said=$("$@" 2>&1) && exit
    echo "$said" | sed 's/sandbox is not running/container not running/' >&2
    exit 1
    ;;
*) exec "$@" ;;
esac
