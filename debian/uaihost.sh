#!/bin/sh
# uaihost, for whoever types it. The service's data belongs to its user: root acts as that user, with the
# service's settings, so that it sees the same host and leaves no file that the service could not read.
set -e
program=/opt/uaihost/bin/uaihost
case "${1:-}" in
    # These speak to the service manager, as whoever calls them.
    install | uninstall | start | stop | restart) exec "$program" "$@" ;;
esac
user=$(id -un)
if { [ "$user" = root ] || [ "$user" = uaihost ]; } && getent passwd uaihost >/dev/null; then
    export UAI_CONFIG="${UAI_CONFIG:-/etc/uaihost/uaihost.toml}"
    export UAI_DATA_DIR="${UAI_DATA_DIR:-/var/lib/uaihost}"
    export UAI_HOST_TOKEN_FILE="${UAI_HOST_TOKEN_FILE:-/etc/uaihost/host-token}"
    if [ "$user" = root ] && [ "$UAI_DATA_DIR" = /var/lib/uaihost ]; then
        export HOME=/var/lib/uaihost USER=uaihost LOGNAME=uaihost
        exec setpriv --reuid=uaihost --regid=uaihost --init-groups -- "$program" "$@"
    fi
fi
exec "$program" "$@"
